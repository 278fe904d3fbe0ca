package kerascompress

/**
 * A value of JSON as Kotlin's own: Map, List, String, Double, Boolean, null.
 *
 * Android has a parser of its own; the JVM, where the tests run, has none.
 *
 * @throws ModelError if the text is not JSON.
 */
fun parseJson(text: String): Any? = JsonParser(text).run { value(0).also { if (next() != null) fail() } }

private class JsonParser(val text: String) {
    private var at = 0

    fun fail(): Nothing = throw ModelError(Problem.NOT_JSON, text.substring(minOf(at, text.length)).take(20))

    /** The next character that is no white space; null at the end. */
    fun next(): Char? {
        while (at < text.length && text[at] in " \t\r\n") at++
        return text.getOrNull(at)
    }

    private fun skip(c: Char) = (next() == c).also { if (it) at++ }

    private fun need(c: Char) = skip(c) || fail()

    fun value(depth: Int): Any? {
        if (depth > 64) fail() // before the stack ends
        return when (next()) {
            '{' -> members(depth)
            '[' -> items(depth)
            '"' -> string()
            else -> scalar()
        }
    }

    private fun members(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        need('{')
        if (skip('}')) return found
        do {
            if (next() != '"') fail()
            val key = string()
            need(':')
            found[key] = value(depth + 1)
        } while (skip(','))
        need('}')
        return found
    }

    private fun items(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        need('[')
        if (skip(']')) return found
        do found.add(value(depth + 1)) while (skip(','))
        need(']')
        return found
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (true) {
            val c = text.getOrNull(at++) ?: fail()
            if (c == '"') return out.toString()
            out.append(if (c == '\\') escaped() else c)
        }
    }

    private fun escaped(): Char {
        val c = text.getOrNull(at++) ?: fail()
        val place = "\"\\/bfnrt".indexOf(c)
        if (place >= 0) return "\"\\/\b\u000c\n\r\t"[place]
        val digits = text.substring(minOf(at, text.length), minOf(at + 4, text.length))
        at += 4
        return digits.toIntOrNull(16)?.takeIf { c == 'u' && digits.length == 4 && it >= 0 }?.toChar() ?: fail()
    }

    private fun scalar(): Any? {
        val start = at
        while (at < text.length && (text[at].isLetterOrDigit() || text[at] in "+-.")) at++
        return when (val word = text.substring(start, at)) {
            "true" -> true
            "false" -> false
            "null" -> null
            else -> word.takeIf { it.isNotEmpty() && it[0] in "-0123456789" }?.toDoubleOrNull() ?: fail()
        }
    }
}
