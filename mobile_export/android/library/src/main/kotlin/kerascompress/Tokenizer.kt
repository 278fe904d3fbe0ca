package kerascompress

import java.text.Normalizer

/**
 * One text, or a pair, as ids.
 *
 * @property wordStarts of words: position of each word's first piece, -1 if it has none.
 * @property truncated whether an end was cut off.
 */
class Encoding(
    val ids: IntArray,
    val typeIds: IntArray,
    val wordStarts: IntArray,
    val truncated: Boolean,
)

/** A word that is looked for before a text is cut into pieces; the fields are those of Hugging Face's `AddedToken`. */
class AddedWord(val content: String, val singleWord: Boolean, val normalized: Boolean)

/**
 * Texts to ids as `keras_compress/bert/tokenizer.py` gives them: clean, split Chinese characters, lower-case, word pieces.
 *
 * All works on code points. Which characters are letters, accents or marks is told by the system's Unicode: characters
 * that are newer than one side's differ.
 *
 * @param vocabulary pieces; an id is a position.
 * @param outside how many of the last pieces are added words alone, which no word is cut into.
 * @param specialInText whether "[SEP]" in a text is the special piece, or five characters.
 * @param truncationLeft which end of a long text is cut off.
 */
class Tokenizer(
    vocabulary: List<String>,
    private val lowercase: Boolean = true,
    private val stripAccents: Boolean = lowercase,
    added: List<AddedWord> = emptyList(),
    outside: Int = 0,
    private val splitChinese: Boolean = true,
    specialInText: Boolean = false,
    private val truncationLeft: Boolean = false,
) {
    private class Word(val text: String, val id: Int, val alone: Boolean)

    private val pieces = HashMap<String, Int>(2 * vocabulary.size)
    private val longest: Int
    private val ends: Map<String, Int>
    private val rawWords: Map<Char, List<Word>> // looked for in the text as it is
    private val words: Map<Char, List<Word>> // looked for in the normalised text

    init {
        vocabulary.forEachIndexed { id, piece -> pieces[piece] = id }
        if (pieces.size != vocabulary.size || SPECIAL.any { it !in pieces }) {
            throw ModelError(Problem.VOCABULARY, "${vocabulary.size}")
        }
        val special = if (specialInText) (SPECIAL + "[MASK]").filter { it in pieces } else emptyList()
        val all = special.map { AddedWord(it, singleWord = false, normalized = false) } + added
        fun of(normalized: Boolean) = all
            .filter { it.normalized == normalized && it.content in pieces }
            .map { Word(if (normalized) normalize(it.content) else it.content, pieces.getValue(it.content), it.singleWord) }
            .filter { it.text.isNotEmpty() }
            .sortedByDescending { it.text.length }
            .groupBy { it.text[0] }
        rawWords = of(false)
        words = of(true)
        ends = SPECIAL.associateWith { pieces.getValue(it) }
        vocabulary.takeLast(outside).forEach { pieces.remove(it) }
        longest = pieces.keys.maxOf { it.length }
    }

    /** Encodes a text, or a pair as [CLS] a [SEP] b [SEP]; the longer text is cut first. */
    fun encode(text: String, second: String? = null, maxLength: Int): Encoding {
        val a = idsOf(text)
        val b = second?.let(::idsOf) ?: return joined(a, null, maxLength, IntArray(0))
        return joined(a, b, maxLength, IntArray(0))
    }

    /** Encodes words, each on its own, with the position of its first piece. */
    fun encodeWords(words: List<String>, maxLength: Int): Encoding {
        val ids = ArrayList<Int>()
        val starts = IntArray(words.size + 1)
        words.forEachIndexed { index, word ->
            ids.addAll(idsOf(word))
            starts[index + 1] = ids.size
        }
        return joined(ids, null, maxLength, starts)
    }

    /** [bounds]: where the ids of each word begin and end. */
    private fun joined(a: List<Int>, b: List<Int>?, maxLength: Int, bounds: IntArray): Encoding {
        val room = maxLength - if (b == null) 2 else 3
        var keepA = a.size
        var keepB = b?.size ?: 0
        if (keepA + keepB > room) {
            if (b == null) {
                keepA = room
            } else {
                val short = minOf(keepA, keepB)
                val long = maxOf(short, room - short)
                val (less, more) = if (short + long > room) room / 2 to room - room / 2 else short to long
                if (keepA > keepB) { keepA = more; keepB = less } else { keepA = less; keepB = more }
            }
        }
        val from = if (truncationLeft) a.size - keepA else 0
        val first = a.subList(from, from + keepA)
        val sep = ends.getValue("[SEP]")
        var ids = listOf(ends.getValue("[CLS]")) + first + sep
        val lengthA = ids.size
        if (b != null) {
            ids = ids + (if (truncationLeft) b.takeLast(keepB) else b.take(keepB)) + sep
        }
        val starts = IntArray(maxOf(bounds.size - 1, 0)) { index ->
            val start = maxOf(bounds[index], from)
            if (start < minOf(bounds[index + 1], from + keepA)) start - from + 1 else -1
        }
        val typeIds = IntArray(ids.size) { if (it < lengthA) 0 else 1 }
        return Encoding(ids.toIntArray(), typeIds, starts, keepA < a.size || keepB < (b?.size ?: 0))
    }

    private fun idsOf(text: String): List<Int> {
        val ids = ArrayList<Int>()
        cut(withoutLoneSurrogates(text), rawWords, ids::add) { raw ->
            cut(normalize(raw), words, ids::add) { part -> forEachWord(part) { addPieces(it, ids) } }
        }
        return ids
    }

    /** Cuts a text at added words: the leftmost, and of several there the longest. */
    private inline fun cut(text: String, words: Map<Char, List<Word>>, onWord: (Int) -> Unit, onText: (String) -> Unit) {
        var start = 0
        var at = 0
        while (words.isNotEmpty() && at < text.length) {
            val word = words[text[at]]?.firstOrNull { text.startsWith(it.text, at) }
            val end = at + (word?.text?.length ?: 1)
            val inWord = word != null && word.alone &&
                (at > 0 && isWordPart(text.codePointBefore(at)) || end < text.length && isWordPart(text.codePointAt(end)))
            if (word != null && !inWord) {
                if (start < at) onText(text.substring(start, at))
                onWord(word.id)
                start = end
            }
            at = end
        }
        if (start < text.length) onText(text.substring(start))
    }

    /** A text as BERT's normaliser leaves it. MediaPipe's tokenizer needs it so, too. */
    fun normalize(text: String): String {
        val clean = StringBuilder(text.length + 16)
        forEachCodePoint(text) { c ->
            when {
                isSpace(c) -> clean.append(' ')
                isDropped(c) -> {}
                splitChinese && isChinese(c) -> clean.append(' ').appendCodePoint(c).append(' ')
                else -> clean.appendCodePoint(c)
            }
        }
        if (!stripAccents && !lowercase) return clean.toString()
        val plain = if (stripAccents) Normalizer.normalize(clean, Normalizer.Form.NFD) else clean.toString()
        val out = StringBuilder(plain.length)
        forEachCodePoint(plain) { c ->
            when {
                stripAccents && c > 0x7f && Character.getType(c) == MARK -> {}
                !lowercase -> out.appendCodePoint(c)
                c == 0x130 -> out.append("i\u0307") // the one capital of two small characters
                else -> out.appendCodePoint(Character.toLowerCase(c))
            }
        }
        return out.toString()
    }

    /** What stands between spaces; each punctuation mark is a word. */
    private inline fun forEachWord(text: String, onWord: (String) -> Unit) {
        var start = 0
        var at = 0
        while (at < text.length) {
            val c = text.codePointAt(at)
            val end = at + Character.charCount(c)
            val mark = isPunctuation(c)
            if (mark || isSpace(c)) {
                if (start < at) onWord(text.substring(start, at))
                if (mark) onWord(text.substring(at, end))
                start = end
            }
            at = end
        }
        if (start < text.length) onWord(text.substring(start))
    }

    /** Adds the longest pieces from the left; a word that cannot be cut so, or has over 100 characters, is [UNK]. */
    private fun addPieces(word: String, ids: MutableList<Int>) {
        val before = ids.size
        var start = if (word.length > 100 && word.codePointCount(0, word.length) > 100) -1 else 0
        while (start in word.indices) {
            var end = minOf(word.length, start + longest)
            var id: Int? = null
            while (end > start) {
                val part = word.substring(start, end)
                id = pieces[if (start == 0) part else "##$part"]
                if (id != null) break
                end--
            }
            if (id != null) ids.add(id)
            start = if (id == null) -1 else end
        }
        if (start < 0) {
            while (ids.size > before) ids.removeAt(ids.size - 1)
            ids.add(ends.getValue("[UNK]"))
        }
    }

    companion object {
        private val SPECIAL = listOf("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        private const val MARK = Character.NON_SPACING_MARK.toInt()
    }
}

/** The words of a text that is to be tagged: what stands between blanks, or the characters of Chinese. */
fun wordsOf(text: String, byCharacter: Boolean = false, splitChinese: Boolean = true): List<String> {
    val words = text.split(" ")
    var run = 0 // of Chinese characters
    var longest = 0
    text.forEach { c ->
        run = if (isChineseWord(c.code)) run + 1 else 0
        longest = maxOf(longest, run)
    }
    val sentence = longest >= 2 && (byCharacter || words.size == 1 || longest >= 5) // no word is so long
    if (!splitChinese || !sentence) return words
    val found = ArrayList<String>()
    var open = false // whether the last word may go on
    forEachCodePoint(text) { c ->
        val letter = Character.isLetter(c) || isNumber(c)
        val goesOn = letter && !isChineseWord(c)
        val part = String(Character.toChars(c))
        if (goesOn && open) found[found.size - 1] += part else if (!isPythonSpace(c)) found.add(part)
        open = goesOn
    }
    return found
}

internal inline fun forEachCodePoint(text: String, action: (Int) -> Unit) {
    var at = 0
    while (at < text.length) {
        val c = text.codePointAt(at)
        action(c)
        at += Character.charCount(c)
    }
}

private fun withoutLoneSurrogates(text: String): String {
    if (text.none(Char::isSurrogate)) return text
    val out = StringBuilder(text.length)
    forEachCodePoint(text) { c -> out.appendCodePoint(if (c in 0xd800..0xdfff) 0xfffd else c) }
    return out.toString()
}

/** Unicode's White_Space, without the control characters among it but the usual three. */
private fun isSpace(c: Int) = c == 0x20 || c == 9 || c == 10 || c == 13 || c > 0x7f &&
    when (Character.getType(c).toByte()) {
        Character.SPACE_SEPARATOR, Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> true
        else -> false
    }

private fun isDropped(c: Int) = c == 0xfffd || when (Character.getType(c).toByte()) {
    Character.CONTROL, Character.FORMAT, Character.PRIVATE_USE -> true
    else -> false
}

private fun isChinese(c: Int) = c >= 0x3400 && (
    c in 0x4e00..0x9fff || c in 0x3400..0x4dbf || c in 0x20000..0x2a6df || c in 0x2a700..0x2b73f ||
        c in 0x2b740..0x2b81f || c in 0x2b920..0x2ceaf || c in 0xf900..0xfaff || c in 0x2f800..0x2fa1f
    )

private fun isPunctuation(c: Int) = if (c < 0x80) {
    c in 33..47 || c in 58..64 || c in 91..96 || c in 123..126
} else {
    when (Character.getType(c).toByte()) {
        Character.CONNECTOR_PUNCTUATION, Character.DASH_PUNCTUATION, Character.START_PUNCTUATION,
        Character.END_PUNCTUATION, Character.INITIAL_QUOTE_PUNCTUATION, Character.FINAL_QUOTE_PUNCTUATION,
        Character.OTHER_PUNCTUATION,
        -> true
        else -> false
    }
}

/** What regular expressions call a word's character. */
private fun isWordPart(c: Int) = Character.isAlphabetic(c) || c == 0x200c || c == 0x200d ||
    when (Character.getType(c).toByte()) {
        Character.NON_SPACING_MARK, Character.ENCLOSING_MARK, Character.COMBINING_SPACING_MARK,
        Character.DECIMAL_DIGIT_NUMBER, Character.CONNECTOR_PUNCTUATION,
        -> true
        else -> false
    }

private fun isChineseWord(c: Int) = c in 0x3400..0x4dbf || c in 0x4e00..0x9fff || c in 0xf900..0xfaff

private fun isNumber(c: Int) = when (Character.getType(c).toByte()) {
    Character.DECIMAL_DIGIT_NUMBER, Character.LETTER_NUMBER, Character.OTHER_NUMBER -> true
    else -> false
}

private fun isPythonSpace(c: Int) = isSpace(c) || c in 0x0b..0x0d || c in 0x1c..0x1f || c == 0x85
