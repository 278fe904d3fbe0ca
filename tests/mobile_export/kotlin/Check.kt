package kerascompress

import java.io.File
import java.nio.ByteBuffer

/**
 * Answers the questions of a JSON file in lines, each answer closed by a form feed: QUESTIONS ANSWERS.
 *
 * A question is {"do": name, ...}. What the library finds wrong is the line "PROBLEM received".
 */
fun main(arguments: Array<String>) {
    val questions = parseJson(File(arguments[0]).readText()) as List<*>
    File(arguments[1]).bufferedWriter().use { out ->
        questions.forEach { question ->
            answer(question as Map<*, *>) { line -> out.write(line + "\n") }
            out.write("\u000c\n")
        }
    }
}

private fun answer(question: Map<*, *>, write: (String) -> Unit) = tried(write) {
    when (question.text("do")) {
        "encode" -> encode(question, write)
        "words" -> question.list("texts").forEach { text ->
            write(wordsOf(text as String, question["characters"] == true).joinToString("\u0001"))
        }
        "model" -> model(question, write)
        "json" -> question.list("texts").forEach { text -> tried(write) { write("${parseJson(text as String)}") } }
        "exits" -> exits(question, write)
        "percentiles" -> {
            val values = question.list("values").map { it as Double }.sorted()
            write("${percentile(values, 0.5)} ${percentile(values, 0.9)}")
        }
        "benchmark" -> rounds(write)
    }
}

private fun tried(write: (String) -> Unit, action: () -> Unit) = try {
    action()
} catch (error: ModelError) {
    write("${error.problem} ${error.received}")
}

private fun strings(value: Any?) = (value as List<*>).map { it as String }

private fun floats(value: Any?) = (value as List<*>).map { (it as Double).toFloat() }.toFloatArray()

private fun row(vararg columns: IntArray) = columns.joinToString("|") { it.joinToString(" ") }

/** Ids of texts: strings, pairs or, with "words", lists of words; then microseconds a text. */
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
    encoded.forEach { write("${row(it.ids, it.typeIds, it.wordStarts)}|${it.truncated}") }
    write("$micros")
}

/** Reads a folder of `export`. Inputs of texts for a file; with "outputs" what these say; with "parity" the self-test. */
private fun model(question: Map<*, *>, write: (String) -> Unit) {
    val folder = File(question.text("folder"))
    val model = Model.read { name -> File(folder, name).takeIf { it.isFile }?.readBytes() }
    val file = model.files.first { it.name == question["file"] }
    model.check(file, ByteBuffer.wrap(File(folder, file.name).readBytes()))
    question.list("texts").forEachIndexed { index, text ->
        val (first, second) = if (text is String) text to null else strings(text).let { it[0] to it[1] }
        val inputs = model.inputs(file, first, second)
        val outputs = question["outputs"] as List<*>?
        if (outputs == null) {
            write("${inputs.signature.name}|${row(inputs.ids, inputs.mask, inputs.typeIds)}")
        } else if (model.perToken) {
            write(tags(model, inputs, floats(outputs[index])).joinToString("\u0001"))
        } else {
            write(scores(model, floats(outputs[index])).joinToString("\u0001") { "${it.label} ${it.value} ${it.holds}" })
        }
    }
    val parity = question["parity"] as String? ?: return
    val told = parseJson(File(folder, parity).readText()) as Map<*, *>
    val wanted = told.member("files").member(file.name).list("outputs")
    for (shift in listOf(0f, 0.1f)) {
        var number = 0
        val found = selfTest(model, file, told) { flat(wanted[number++]).map { it + shift }.toFloatArray() }
        write("${found.sameIds} ${found.texts} ${found.largestDifference} ${found.passed}")
    }
}

private fun flat(value: Any?): List<Float> = if (value is List<*>) value.flatMap(::flat) else listOf((value as Double).toFloat())

/** Uncertainty of logits; for each speed the segment that answers, how many ran, and the answer. */
private fun exits(question: Map<*, *>, write: (String) -> Unit) {
    val rows = question.list("rows").map(::floats)
    rows.forEach { write("${uncertainty(softmax(it))}") }
    question.list("speeds").forEach { speed ->
        val states = ArrayList<Int>()
        val segments = rows.map { logits -> { state: Int -> states.add(state); state + 1 to softmax(logits) } }
        val (probabilities, layer) = earlyExit(0, segments, (speed as Double).toFloat())
        write("$layer|${states.joinToString(" ")}|${probabilities.joinToString(" ")}")
    }
}

/** A clock that stands but while something runs: the k-th call takes k ms. */
private fun rounds(write: (String) -> Unit) {
    var now = 0L
    val calls = ArrayList<String>()
    val timed = listOf("a", "b").map { name ->
        Timed(mapOf("path" to name)) {
            calls.add(name)
            now += calls.size * 1_000_000L
        }
    }
    benchmark(timed, runs = 3, warmup = 1, clock = { now }).forEach { write("$it") }
    write(calls.joinToString(""))
}
