package kerascompress

import java.nio.ByteBuffer
import java.security.MessageDigest

/** One way to run a file: its name in the file, and the number of ids that it takes. */
class Signature(val name: String, val length: Int)

/** A row of `files` in model.json. */
class ModelFile(val name: String, val format: String, val bytes: Long, val sha256: String, val signatures: List<Signature>) {
    val longest = signatures.maxOf { it.length }

    /** The signature that computes least: the shortest with room for so many ids. */
    fun signatureFor(ids: Int): Signature =
        signatures.filter { it.length >= ids }.minByOrNull { it.length } ?: throw ModelError(Problem.LENGTH, "$ids > $longest")
}

/** What a file reads, padded with zeros; [encoding] is what stands in it. */
class Inputs(val signature: Signature, val encoding: Encoding) {
    val ids = IntArray(signature.length) { encoding.ids.getOrElse(it) { 0 } }
    val mask = IntArray(signature.length) { if (it < encoding.ids.size) 1 else 0 }
    val typeIds = IntArray(signature.length) { encoding.typeIds.getOrElse(it) { 0 } }
}

/**
 * What stands in the folder that `export` writes: model.json, vocab.txt, labels.txt, and what texts and answers are.
 *
 * @property task a name of `keras_compress/bert/tasks.py`. @property texts "one", "pair", "either" (of these) or "words".
 * @property answer "softmax" (one name), "sigmoid" (each name on its own, from [threshold] on) or "number".
 */
class Model private constructor(about: Map<*, *>, vocabulary: List<String>, val labels: List<String>) {
    val task = about.text("task")
    val texts = about.text("texts")
    val answer = about.text("answer")
    val perToken = about["per_token"] == true
    val threshold = (about["threshold"] as? Double ?: 0.5).toFloat()
    private val byCharacter = about["words"] == "characters"
    private val switches = about.member("tokenizer")
    private val splitChinese = switches["split_chinese"] == true
    val inputNames = listOf("ids", "mask", "type_ids").map { about.member("inputs").text(it) }
    val outputName = about.text("output")
    val files = about.rows("files").filter { it.text("path").endsWith(".tflite") }.map { row ->
        val signatures = row.rows("signatures").map { Signature(it.text("name"), it.number("length").toInt()) }
        if (signatures.isEmpty()) throw ModelError(Problem.NO_METADATA, "signatures")
        ModelFile(row.text("path"), row.text("format"), row.number("bytes").toLong(), row.text("sha256"), signatures)
    }
    val tokenizer = tokenizerOf(switches, vocabulary)

    init {
        if (task !in TASKS || texts !in setOf("one", "pair", "either", "words")) throw ModelError(Problem.TASK, task)
        val expected = listOf(switches.number("num_pieces").toInt(), about.number("num_labels").toInt())
        if (listOf(vocabulary.size, labels.size) != expected) {
            throw ModelError(Problem.NOT_OF_THIS_MODEL, "${vocabulary.size}, ${labels.size}; $expected")
        }
    }

    /** Whether MediaPipe's TextClassifier reads texts as the model does, once `Tokenizer.normalize` was there. */
    val runsInMediaPipe = task == "classification" && switches["lowercase"] == true && switches["strip_accents"] == true &&
        splitChinese && switches["truncation_side"] == "right" && switches.list("never_split").isEmpty()

    /** The words of a text, as tagging reads it. */
    fun words(text: String) = wordsOf(text, byCharacter, splitChinese)

    /** The inputs of the shortest signature that fits; what no signature has room for is cut off. */
    fun inputs(file: ModelFile, text: String, second: String? = null): Inputs {
        val encoding = when {
            texts == "words" -> tokenizer.encodeWords(words(text), file.longest)
            texts == "pair" -> tokenizer.encode(text, second ?: "", file.longest)
            else -> tokenizer.encode(text, second, file.longest)
        }
        return inputs(file, encoding)
    }

    fun inputs(file: ModelFile, encoding: Encoding) = Inputs(file.signatureFor(encoding.ids.size), encoding)

    companion object {
        val TASKS = setOf("classification", "matching", "multilabel", "regression", "tagging")
        private const val KIND = "keras_compress_model"
        private const val VERSION = 1.0

        /**
         * Reads a folder that `export` wrote; [open] gives a file's bytes by name, null if it is not there.
         *
         * @throws ModelError if a file is missing, damaged, or of another model.
         */
        fun read(open: (String) -> ByteArray?): Model {
            fun bytes(name: String) = open(name) ?: throw ModelError(Problem.MISSING, name)
            val about = parseJson(textOf("model.json", bytes("model.json")))
            if (about !is Map<*, *> || about[KIND] != VERSION) throw ModelError(Problem.NO_METADATA, "model.json")
            val seal = about.member("sha256")
            val (vocabulary, labels) = listOf("vocab.txt", "labels.txt").map { name ->
                val content = bytes(name)
                if (seal.text(name) != sha256(ByteBuffer.wrap(content))) throw ModelError(Problem.NOT_OF_THIS_MODEL, name)
                textOf(name, content).removeSuffix("\n").split("\n")
            }
            return Model(about, vocabulary, labels)
        }

        private fun textOf(name: String, bytes: ByteArray): String {
            val text = String(bytes, Charsets.UTF_8)
            if ('\u0000' in text) throw ModelError(Problem.NO_METADATA, name) // another kind of file
            return text
        }
    }

    /** @throws ModelError unless the content of a file is what model.json tells about. */
    fun check(file: ModelFile, content: ByteBuffer) {
        if (sha256(content) != file.sha256) throw ModelError(Problem.DAMAGED, file.name)
    }
}

/** The tokenizer that `tokenizer` of model.json describes. */
fun tokenizerOf(switches: Map<*, *>, vocabulary: List<String>) = Tokenizer(
    vocabulary,
    lowercase = switches["lowercase"] == true,
    stripAccents = switches["strip_accents"] == true,
    splitChinese = switches["split_chinese"] == true,
    truncationLeft = switches["truncation_side"] == "left",
    maxCharacters = switches.number("max_characters").toInt(),
    neverSplit = switches.rows("never_split").map { word ->
        WholeWord(word.text("content"), word.number("id").toInt(), word["single_word"] == true, word["normalized"] == true)
    },
)

/** SHA-256 of what a buffer has left, which stays as it is, in digits. */
fun sha256(content: ByteBuffer): String {
    val digest = MessageDigest.getInstance("SHA-256")
    digest.update(content.duplicate())
    return digest.digest().joinToString("") { "%02x".format(it) }
}

internal fun Map<*, *>.text(key: String) = this[key] as? String ?: throw ModelError(Problem.NO_METADATA, key)
internal fun Map<*, *>.number(key: String) = this[key] as? Double ?: throw ModelError(Problem.NO_METADATA, key)
internal fun Map<*, *>.list(key: String) = this[key] as? List<*> ?: throw ModelError(Problem.NO_METADATA, key)
internal fun Map<*, *>.member(key: String) = this[key] as? Map<*, *> ?: throw ModelError(Problem.NO_METADATA, key)
internal fun Map<*, *>.rows(key: String) = list(key).map { it as? Map<*, *> ?: throw ModelError(Problem.NO_METADATA, key) }
