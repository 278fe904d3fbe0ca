package kerascompress

/** Values of JSON as Kotlin's own: Map, List, String, Double, Boolean, null. Android has a parser; the JVM that runs the tests has none. */
object Json {
    private const val DEEPEST = 64

    /** @throws ModelError if the text is not JSON. */
    fun parse(text: String): Any? {
        val parser = Parser(text)
        val value = parser.value(0)
        parser.space()
        if (parser.at < text.length) parser.fail()
        return value
    }

    fun write(value: Any?): String = when (value) {
        null -> "null"
        is Map<*, *> -> value.entries.joinToString(", ", "{", "}") { (key, item) -> "${quoted("$key")}: ${write(item)}" }
        is Iterable<*> -> value.joinToString(", ", "[", "]", transform = ::write)
        is Float -> if (value.isNaN() || value.isInfinite()) "null" else "$value"
        is Double -> if (value.isNaN() || value.isInfinite()) "null" else "$value"
        is Number, is Boolean -> "$value"
        else -> quoted("$value")
    }

    private fun quoted(text: String) = buildString {
        append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> append('\\').append(c)
                c < ' ' || c.isSurrogate() -> append("\\u").append(c.code.toString(16).padStart(4, '0'))
                else -> append(c)
            }
        }
        append('"')
    }

    private class Parser(val text: String) {
        var at = 0

        fun fail(): Nothing = throw ModelError(Problem.NOT_JSON, text.substring(minOf(at, text.length)).take(20))

        fun space() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun skip(c: Char): Boolean {
            space()
            return (at < text.length && text[at] == c).also { if (it) at++ }
        }

        fun value(depth: Int): Any? {
            space()
            if (depth > DEEPEST || at >= text.length) fail()
            val constant = CONSTANTS.keys.firstOrNull { text.startsWith(it, at) }
            return when {
                text[at] == '{' -> members(depth)
                text[at] == '[' -> items(depth)
                text[at] == '"' -> string()
                constant != null -> CONSTANTS[constant].also { at += constant.length }
                else -> number()
            }
        }

        private fun members(depth: Int): Map<String, Any?> {
            val found = LinkedHashMap<String, Any?>()
            at++
            if (skip('}')) return found
            do {
                space()
                if (at >= text.length || text[at] != '"') fail()
                val key = string()
                if (!skip(':')) fail()
                found[key] = value(depth + 1)
            } while (skip(','))
            if (!skip('}')) fail()
            return found
        }

        private fun items(depth: Int): List<Any?> {
            val found = ArrayList<Any?>()
            at++
            if (skip(']')) return found
            do found.add(value(depth + 1)) while (skip(','))
            if (!skip(']')) fail()
            return found
        }

        private fun string(): String {
            val out = StringBuilder()
            at++
            while (true) {
                val c = text.getOrNull(at++) ?: fail()
                if (c == '"') return out.toString()
                if (c != '\\') {
                    out.append(c)
                    continue
                }
                val escape = text.getOrNull(at++) ?: fail()
                val plain = "\"\\/bfnrt".indexOf(escape)
                if (plain >= 0) {
                    out.append("\"\\/\b\u000c\n\r\t"[plain])
                } else {
                    val digits = text.substring(at, minOf(at + 4, text.length))
                    if (escape != 'u' || digits.length < 4) fail()
                    out.append((digits.toIntOrNull(16) ?: fail()).toChar())
                    at += 4
                }
            }
        }

        private fun number(): Double {
            val start = at
            while (at < text.length && text[at] in "+-.0123456789eE") at++
            return text.substring(start, at).toDoubleOrNull() ?: fail()
        }
    }

    private val CONSTANTS = mapOf("true" to true, "false" to false, "null" to null)
}
