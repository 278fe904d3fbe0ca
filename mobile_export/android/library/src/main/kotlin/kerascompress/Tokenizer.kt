package kerascompress

import java.text.Normalizer

/**
 * One text, or a pair, as ids.
 *
 * @property wordStarts of words: position of each word's first piece, -1 if it has none.
 * @property truncated whether an end was cut off.
 */
class Encoding(val ids: IntArray, val typeIds: IntArray, val wordStarts: IntArray, val truncated: Boolean)

/** A word that is looked for before a text is cut into pieces: one of `never_split` in model.json. */
class WholeWord(val text: String, val id: Int, val alone: Boolean = false, val normalized: Boolean = false)

/**
 * Texts to ids as `keras_compress/bert/tokenizer.py` gives them: clean, split Chinese characters, lower-case, word pieces.
 *
 * All works on code points. Which characters are letters, accents or marks is told by the system's Unicode: characters
 * that are newer than one side's differ.
 *
 * @param vocabulary pieces; an id is a position.
 * @param truncationLeft which end of a long text is cut off.
 * @param maxCharacters of a word, beyond which it is unknown.
 */
class Tokenizer(
    vocabulary: List<String>,
    private val lowercase: Boolean = true,
    private val stripAccents: Boolean = lowercase,
    private val splitChinese: Boolean = true,
    private val truncationLeft: Boolean = false,
    private val maxCharacters: Int = 100,
    neverSplit: List<WholeWord> = emptyList(),
) {
    private val pieces = HashMap<String, Int>(2 * vocabulary.size)
    private val restPieces = HashMap<String, Int>(vocabulary.size) // without their ##
    private val longest = vocabulary.maxOfOrNull { it.length } ?: 0
    private val rawWords: Map<Char, List<WholeWord>> // looked for in the text as it is
    private val words: Map<Char, List<WholeWord>> // looked for in the normalised text

    init {
        vocabulary.forEachIndexed { id, piece ->
            pieces[piece] = id
            if (piece.startsWith("##")) restPieces[piece.substring(2)] = id
        }
        val missing = listOf("[UNK]", "[CLS]", "[SEP]").filter { it !in pieces }
        if (missing.isNotEmpty()) throw ModelError(Problem.VOCABULARY, missing.joinToString())
        fun byFirst(all: List<WholeWord>) =
            all.filter { it.text != "" }.sortedByDescending { it.text.length }.groupBy { it.text[0] }
        val (after, before) = neverSplit.partition { it.normalized }
        rawWords = byFirst(before)
        words = byFirst(after.map { WholeWord(normalize(it.text), it.id, it.alone) })
    }

    private val unknown = pieces.getValue("[UNK]")
    private val cls = pieces.getValue("[CLS]")
    private val sep = pieces.getValue("[SEP]")

    /** Encodes a text, or a pair as [CLS] a [SEP] b [SEP]; the longer text is cut first. */
    fun encode(text: String, second: String?, maxLength: Int): Encoding {
        val a = idsOf(text)
        val b = second?.let(::idsOf)
        val room = maxLength - if (b == null) 2 else 3
        val sizeB = b?.size ?: 0
        if (b == null || a.size + sizeB <= room) return joined(cut(a, room), b, a.size > room)
        val short = minOf(a.size, sizeB)
        val long = maxOf(short, room - short)
        val (less, more) = if (short + long > room) room / 2 to room - room / 2 else short to long
        val ofA = if (a.size > sizeB) more else less
        return joined(cut(a, ofA), cut(b, less + more - ofA), true)
    }

    /** Encodes words, each on its own, with the position of its first piece. */
    fun encodeWords(words: List<String>, maxLength: Int): Encoding {
        val parts = words.map(::idsOf)
        val all = parts.flatten()
        val kept = cut(all, maxLength - 2)
        val from = if (truncationLeft) all.size - kept.size else 0
        var end = 0 // of the word's pieces, among all
        val starts = parts.map { part ->
            val start = maxOf(end, from)
            end += part.size
            if (start < minOf(end, from + kept.size)) start - from + 1 else -1
        }
        return joined(kept, null, kept.size < all.size, starts.toIntArray())
    }

    private fun cut(ids: List<Int>, size: Int) = if (truncationLeft) ids.takeLast(size) else ids.take(size)

    private fun joined(a: List<Int>, b: List<Int>?, truncated: Boolean, starts: IntArray = IntArray(0)): Encoding {
        val first = listOf(cls) + a + sep
        val ids = if (b == null) first else first + b + sep
        return Encoding(ids.toIntArray(), IntArray(ids.size) { if (it < first.size) 0 else 1 }, starts, truncated)
    }

    private fun idsOf(text: String): List<Int> {
        val ids = ArrayList<Int>()
        findWords(withoutLoneSurrogates(text), rawWords, ids) { raw ->
            findWords(normalize(raw), words, ids) { part -> forEachWord(part) { addPieces(it, ids) } }
        }
        return ids
    }

    /** Adds the ids of whole words in a text: of the leftmost, and of several there the longest; the rest is for [onText]. */
    private fun findWords(text: String, words: Map<Char, List<WholeWord>>, ids: MutableList<Int>, onText: (String) -> Unit) {
        var start = 0
        var at = 0
        while (words.isNotEmpty() && at < text.length) {
            val word = words[text[at]]?.firstOrNull { text.startsWith(it.text, at) }
            val end = at + (word?.text?.length ?: 1)
            val inWord = word != null && word.alone &&
                (at > 0 && isWordPart(text.codePointBefore(at)) || end < text.length && isWordPart(text.codePointAt(end)))
            if (word != null && !inWord) {
                if (start < at) onText(text.substring(start, at))
                ids.add(word.id)
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
                c == 0xfffd || isOf(c, DROPPED) -> {}
                splitChinese && isChinese(c) -> clean.append(' ').appendCodePoint(c).append(' ')
                else -> clean.appendCodePoint(c)
            }
        }
        val plain = if (stripAccents) Normalizer.normalize(clean, Normalizer.Form.NFD) else clean.toString()
        val out = StringBuilder(plain.length)
        forEachCodePoint(plain) { c ->
            when {
                stripAccents && isOf(c, ACCENTS) -> {}
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

    /** Adds the longest pieces from the left; a word that cannot be cut so, or is too long, is [UNK]. */
    private fun addPieces(word: String, ids: MutableList<Int>) {
        val found = ArrayList<Int>()
        var start = 0
        while (start < word.length) {
            val known = if (start == 0) pieces else restPieces
            var end = minOf(word.length, start + longest)
            var id: Int? = null
            while (end > start) {
                id = known[word.substring(start, end)]
                if (id != null) break
                end--
            }
            if (id == null || word.length > maxCharacters && word.codePointCount(0, word.length) > maxCharacters) {
                ids.add(unknown)
                return
            }
            found.add(id)
            start = end
        }
        ids.addAll(found)
    }
}

/** The words of a text that is to be tagged: what stands between blanks, or the characters of Chinese (`words.py`). */
fun wordsOf(text: String, byCharacter: Boolean = false, splitChinese: Boolean = true): List<String> {
    val words = text.split(" ")
    var run = 0 // of Chinese characters
    val longest = text.maxOfOrNull { c -> run = if (isChineseWord(c.code)) run + 1 else 0; run } ?: 0
    val sentence = longest >= 2 && (byCharacter || words.size == 1 || longest >= 5) // no word is so long
    if (!splitChinese || !sentence) return words
    val found = ArrayList<String>()
    var open = false // whether the last word may go on
    forEachCodePoint(text) { c ->
        val goesOn = isOf(c, ALPHANUMERIC) && !isChineseWord(c)
        val part = String(Character.toChars(c))
        if (goesOn && open) {
            found[found.size - 1] += part
        } else if (!isSpace(c) && c !in 0x0b..0x0c && c !in 0x1c..0x1f && c != 0x85) {
            found.add(part)
        }
        open = goesOn
    }
    return found
}

private inline fun forEachCodePoint(text: String, action: (Int) -> Unit) {
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

// Unicode's categories as bits.
private fun categories(vararg types: Byte) = types.fold(0) { bits, type -> bits or (1 shl type.toInt()) }
private fun isOf(c: Int, categories: Int) = categories shr Character.getType(c) and 1 == 1
private val DROPPED = categories(Character.CONTROL, Character.FORMAT, Character.PRIVATE_USE)
private val ACCENTS = categories(Character.NON_SPACING_MARK)
private val SPACES = categories(Character.SPACE_SEPARATOR, Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR)
private val PUNCTUATION = categories(
    Character.CONNECTOR_PUNCTUATION, Character.DASH_PUNCTUATION, Character.START_PUNCTUATION, Character.END_PUNCTUATION,
    Character.INITIAL_QUOTE_PUNCTUATION, Character.FINAL_QUOTE_PUNCTUATION, Character.OTHER_PUNCTUATION,
)
private val WORD_PART = categories(
    Character.NON_SPACING_MARK, Character.ENCLOSING_MARK, Character.COMBINING_SPACING_MARK,
    Character.DECIMAL_DIGIT_NUMBER, Character.CONNECTOR_PUNCTUATION,
)
private val ALPHANUMERIC = categories(
    Character.UPPERCASE_LETTER, Character.LOWERCASE_LETTER, Character.TITLECASE_LETTER, Character.MODIFIER_LETTER,
    Character.OTHER_LETTER, Character.DECIMAL_DIGIT_NUMBER, Character.LETTER_NUMBER, Character.OTHER_NUMBER,
)

private fun isSpace(c: Int) = c == 9 || c == 10 || c == 13 || isOf(c, SPACES)
private fun isWordPart(c: Int) = Character.isAlphabetic(c) || c == 0x200c || c == 0x200d || isOf(c, WORD_PART)
private fun isPunctuation(c: Int) = c in 33..47 || c in 58..64 || c in 91..96 || c in 123..126 || isOf(c, PUNCTUATION)
private fun isChineseWord(c: Int) = c in 0x3400..0x4dbf || c in 0x4e00..0x9fff || c in 0xf900..0xfaff
private fun isChinese(c: Int) = isChineseWord(c) || c in 0x20000..0x2a6df || c in 0x2a700..0x2b73f ||
    c in 0x2b740..0x2b81f || c in 0x2b920..0x2ceaf || c in 0x2f800..0x2fa1f
