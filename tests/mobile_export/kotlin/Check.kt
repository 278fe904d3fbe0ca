package kerascompress

import java.io.File
import java.nio.ByteBuffer

/**
 * Answers the questions of a JSON file, one line each: `java ... kerascompress.CheckKt QUESTIONS ANSWERS`.
 *
 * Questions are lists, {"do": name, ...}. What is wrong with the input is the answer "PROBLEM received".
 */
fun main(arguments: Array<String>) {
    val questions = parseJson(File(arguments[0]).readText()) as List<*>
    File(arguments[1]).bufferedWriter().use { out ->
        questions.forEach { answer(it as Map<*, *>) { line -> out.write(line + "\n") } }
    }
}

private fun answer(question: Map<*, *>, write: (String) -> Unit) {
    try {
        when (question.text("do")) {
            "encode" -> encode(question, write)
            "words" -> question.list("texts").forEach { text ->
                write(wordsOf(text as String, question["characters"] == true).joinToString("\u0001"))
            }
            "model" -> predict(question, write)
            "json" -> question.list("texts").forEach { text -> write(problemOr { "${parseJson(text as String)}" }) }
            "math" -> math(question, write)
            "benchmark" -> timed(write)
        }
    } catch (error: ModelError) {
        write("${error.problem} ${error.received}")
    }
}

private fun problemOr(action: () -> String) = try {
    action()
} catch (error: ModelError) {
    "${error.problem}"
}

private fun strings(value: Any?) = (value as List<*>).map { it as String }

private fun line(encoding: Encoding) = listOf(encoding.ids, encoding.typeIds, encoding.wordStarts)
    .joinToString("|", postfix = "|${encoding.truncated}") { it.joinToString(" ") }

/** Ids of texts: strings, pairs or, with "words", lists of words. */
private fun encode(question: Map<*, *>, write: (String) -> Unit) {
    val tokenizer = tokenizerOf(question.member("tokenizer"), strings(question["vocabulary"]))
    val length = question.number("length").toInt()
    val start = System.nanoTime()
    val encoded = question.list("texts").map { text ->
        when {
            question["words"] == true -> tokenizer.encodeWords(strings(text), length)
            text is String -> tokenizer.encode(text, null, length)
            else -> strings(text).let { (a, b) -> tokenizer.encode(a, b, length) }
        }
    }
    val micros = (System.nanoTime() - start) / 1e3 / encoded.size
    encoded.forEach { write(line(it)) }
    write("$micros")
}

/** Reads an exported folder; inputs of texts for a file, or with "outputs" what outputs say. */
private fun predict(question: Map<*, *>, write: (String) -> Unit) {
    val folder = File(question.text("folder"))
    val model = Model.read { name -> File(folder, name).takeIf { it.isFile }?.readBytes() }
    val file = model.files.first { it.name == question["file"] }
    model.check(file, ByteBuffer.wrap(File(folder, file.name).readBytes()))
    val outputs = question["outputs"] as List<*>?
    question.list("texts").forEachIndexed { index, text ->
        val pair = if (text is String) listOf(text) else strings(text)
        val inputs = model.inputs(file, pair[0], pair.getOrNull(1))
        if (outputs == null) {
            val arrays = listOf(inputs.ids, inputs.mask, inputs.typeIds).joinToString("|") { it.joinToString(" ") }
            write("${inputs.signature.name}|$arrays")
        } else {
            val output = (outputs[index] as List<*>).map { (it as Double).toFloat() }.toFloatArray()
            write(
                if (model.perToken) tags(model, inputs, output).joinToString(" ")
                else scores(model, output).joinToString(" ") { "${it.label}=${it.value}=${it.holds}" },
            )
        }
    }
    (question["parity"] as Map<*, *>?)?.let { parity ->
        // A file that gives what is written for its inputs, and then one that is off by .1.
        val rows = parity.member("files").member(file.name).list("outputs").iterator()
        fun flat(value: Any?): List<Float> = if (value is List<*>) value.flatMap(::flat) else listOf((value as Double).toFloat())
        var shift = 0f
        val run = { _: Inputs -> flat(rows.next()).map { it + shift }.toFloatArray() }
        write(selfTest(model, file, parity, run).let { "${it.texts} ${it.sameIds} ${it.largestDifference} ${it.passed}" })
        shift = 0.1f
    }
}

private fun math(question: Map<*, *>, write: (String) -> Unit) {
    val rows = question.list("rows").map { row -> (row as List<*>).map { (it as Double).toFloat() }.toFloatArray() }
    rows.forEach { write("${uncertainty(softmax(it))}") }
    // Three segments, of 1, 2 and 4 layers; each answers one of the rows.
    question.list("speeds").forEach { speed ->
        var ran = 0
        val segments = rows.map { row -> { state: Int -> ran += 1; state * 2 to softmax(row) } }
        val (probabilities, layer) = earlyExit(1, segments, (speed as Double).toFloat())
        write("$layer $ran ${probabilities.joinToString(" ")}")
    }
    write(question.list("values").map { it as Double }.sorted().let { "${percentile(it, 0.5)} ${percentile(it, 0.9)}" })
}

private fun timed(write: (String) -> Unit) {
    var now = 0L
    val calls = ArrayList<String>()
    val each = listOf("a", "b").mapIndexed { k, name ->
        Timed(mapOf("path" to name)) { calls.add(name); now += (k + 1) * calls.size * 1_000_000L }
    }
    benchmark(each, runs = 3, warmup = 1, clock = { now }).forEach { write("$it") }
    write(calls.joinToString(""))
}
