package kerascompress

import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ln

/** A label with its probability, or the number of a regression. [holds]: whether it is (part of) the answer. */
class Score(val label: String, val value: Float, val holds: Boolean)

/** What a file's output (classes) says, the best first. */
fun scores(model: Model, output: FloatArray): List<Score> {
    checkOutput(output, model.labels.size)
    val best = output.indices.maxByOrNull { output[it] }
    return model.labels.indices
        .map { k -> Score(model.labels[k], output[k], if (model.answer == "sigmoid") output[k] >= model.threshold else k == best) }
        .sortedByDescending { it.value }
}

/** The label of each word from an output (length x labels); beyond what the file reads "O" or, where that is no label, null. */
fun tags(model: Model, inputs: Inputs, output: FloatArray): List<String?> {
    val n = model.labels.size
    checkOutput(output, n * inputs.signature.length)
    val outside = "O".takeIf { it in model.labels }
    return inputs.encoding.wordStarts.map { start ->
        if (start < 0) outside else model.labels[(0 until n).maxByOrNull { output[start * n + it] }!!]
    }
}

private fun checkOutput(output: FloatArray, size: Int) {
    if (output.size != size) throw ModelError(Problem.OUTPUT, "${output.size}; $size")
    if (output.any { it.isNaN() || it.isInfinite() }) throw ModelError(Problem.OUTPUT, "NaN")
}

fun softmax(logits: FloatArray): FloatArray {
    val largest = logits.max()
    val powers = logits.map { exp((it - largest).toDouble()) }
    return FloatArray(logits.size) { (powers[it] / powers.sum()).toFloat() }
}

/** Normalised entropy, 0 sure to 1 all alike: Eq. 7 of FastBERT (Liu et al., 2020), as in `keras_compress/bert/early_exit.py`. */
fun uncertainty(probabilities: FloatArray): Float {
    // sum_i p(i) log p(i) / log(1/N)
    val entropy = probabilities.sumOf { p -> if (p > 0) p * ln(p.toDouble()) else 0.0 }
    return (entropy / ln(1.0 / probabilities.size)).coerceIn(0.0, 1.0).toFloat()
}

/**
 * Runs a model segment by segment, until one is sure; the layers above are not computed.
 *
 * No file of `export` has segments yet: the loop is for those that will.
 *
 * @param segments each takes the state of the one before and gives its own, and its classes' probabilities.
 * @param speed largest uncertainty with which a text leaves.
 * @return the probabilities, and the number of the segment that gave them, from 1.
 */
fun <State> earlyExit(first: State, segments: List<(State) -> Pair<State, FloatArray>>, speed: Float): Pair<FloatArray, Int> {
    var state = first
    for ((index, segment) in segments.withIndex()) {
        val (next, probabilities) = segment(state)
        if (index == segments.size - 1 || uncertainty(probabilities) <= speed) return probabilities to index + 1
        state = next
    }
    throw ModelError(Problem.OUTPUT, "0")
}

/** How a file does on the texts of parity.json, which the exporting machine wrote. */
class SelfTest(val texts: Int, val sameIds: Int, val largestDifference: Double, val tolerance: Double) {
    val passed get() = sameIds == texts && largestDifference <= tolerance
}

/** Runs all texts of parity.json; [run] gives a file's output for inputs. */
fun selfTest(model: Model, file: ModelFile, parity: Map<*, *>, run: (Inputs) -> FloatArray): SelfTest {
    val row = parity.member("files").member(file.name)
    if (row.text("sha256") != file.sha256) throw ModelError(Problem.NOT_OF_THIS_MODEL, "parity.json")
    val length = row.number("max_length").toInt()
    val texts = parity.list("texts")
    val ids = parity.member("inputs").rows("$length").map { it.list("ids") }
    val outputs = row.list("outputs").map(::numbers)
    if (ids.size != texts.size || outputs.size != texts.size) throw ModelError(Problem.NO_METADATA, "parity.json")
    var same = 0
    var largest = 0.0
    texts.forEachIndexed { index, text ->
        val parts = if (text is List<*>) text.map { "$it" } else listOf("$text")
        val encoding = when {
            model.texts == "words" -> model.tokenizer.encodeWords(parts[0].split(" "), length)
            else -> model.tokenizer.encode(parts[0], parts.getOrNull(1), length)
        }
        if (encoding.ids.map(Int::toDouble) == ids[index]) same++
        val output = run(model.inputs(file, encoding))
        outputs[index].forEachIndexed { k, value -> largest = maxOf(largest, abs(value - output.getOrElse(k) { Float.NaN })) }
    }
    return SelfTest(texts.size, same, largest, row.number("tolerance"))
}

private fun numbers(value: Any?): List<Double> =
    if (value is List<*>) value.flatMap(::numbers) else listOf(value as? Double ?: Double.NaN)
