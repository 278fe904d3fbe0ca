package kerascompress

import java.io.File

fun main(arguments: Array<String>) {
    val request = Json.parse(File(arguments[0]).readText()) as Map<*, *>
    val out = File(arguments[1]).bufferedWriter()
    for (job in request["jobs"] as List<*>) {
        job as Map<*, *>
        val v = job["vocab"] as List<String>
        val words = (job["added"] as List<Map<String, Any>>).map { AddedWord(it["content"] as String, it["single_word"] as Boolean, it["normalized"] as Boolean) }
        val t = Tokenizer(v, job["lowercase"] as Boolean, job["strip"] as Boolean, words, (job["outside"] as Double).toInt(), job["chinese"] as Boolean, job["special"] as Boolean, job["left"] as Boolean)
        val n = (job["length"] as Double).toInt()
        val texts = job["texts"] as List<*>
        val start = System.nanoTime()
        for (x in texts) {
            val e = when (x) { is String -> t.encode(x, null, n); else -> { val l = x as List<String>; if (job["mode"] == "pair") t.encode(l[0], l[1], n) else t.encodeWords(l, n) } }
            out.write(e.ids.joinToString(" ") + "|" + e.typeIds.joinToString(" ") + "|" + e.wordStarts.joinToString(" ") + "|" + e.truncated + "\n")
        }
        System.err.println("us per text ${(System.nanoTime() - start) / 1e3 / texts.size}")
    }
    out.close()
}
