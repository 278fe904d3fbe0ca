package kerascompress.app

import android.content.Context
import android.net.Uri
import android.provider.OpenableColumns
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import kerascompress.Model
import kerascompress.ModelError
import kerascompress.ModelFile
import kerascompress.Problem
import kerascompress.parseJson

private const val FOLDER = "models"
private val NAMES = setOf("model.json", "vocab.txt", "labels.txt", "parity.json")

/** A folder that `export` wrote: under assets/models, or among the app's own files after the user picked it. */
class Place(private val context: Context, val name: String, private val folder: File?) {
    val model = Model.read(::bytes)

    fun bytes(file: String): ByteArray? = try {
        if (folder == null) context.assets.open("$FOLDER/$name/$file").use { it.readBytes() } else File(folder, file).readBytes()
    } catch (_: IOException) {
        null
    }

    /** Whether a file of the model is there: the user may have picked some of them. */
    fun has(file: ModelFile) =
        if (folder == null) file.name in context.assets.list("$FOLDER/$name").orEmpty() else File(folder, file.name).isFile

    /** A file of the model, read where it stands, after its SHA-256 was compared. */
    fun content(file: ModelFile): ByteBuffer = try {
        val content = if (folder == null) {
            context.assets.openFd("$FOLDER/$name/${file.name}").use { asset ->
                FileInputStream(asset.fileDescriptor).use {
                    it.channel.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
                }
            }
        } else {
            FileInputStream(File(folder, file.name)).use { it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.channel.size()) }
        }
        content.also { model.check(file, it) }
    } catch (_: IOException) {
        throw ModelError(Problem.MISSING, file.name)
    }

    /** The texts, ids and outputs of the exporting machine; null without them. */
    fun parity() = bytes("parity.json")?.let { parseJson(String(it, Charsets.UTF_8)) as? Map<*, *> }
}

/** All models that can be read, and what keeps others from being read. */
fun places(context: Context): Pair<List<Place>, List<Throwable>> {
    val inAssets = context.assets.list(FOLDER).orEmpty().map { it to null }
    val picked = File(context.filesDir, FOLDER).listFiles().orEmpty().sorted().map { it.name to it }
    val (good, bad) = (inAssets + picked).map { (name, folder) -> runCatching { Place(context, name, folder) } }.partition { it.isSuccess }
    return good.map { it.getOrThrow() } to bad.mapNotNull { it.exceptionOrNull() }
}

/**
 * Copies files that the user picked into a folder of the app's own, if they are a model, and only as a whole.
 *
 * @throws ModelError if they are not; then nothing is kept.
 */
fun keep(context: Context, uris: List<Uri>) {
    val folder = File(context.cacheDir, FOLDER)
    folder.deleteRecursively() // of a copy that was broken off
    try {
        folder.mkdirs()
        for (uri in uris) {
            val name = File(displayName(context, uri)).name
            if (name !in NAMES && !name.endsWith(".tflite")) continue
            val source = context.contentResolver.openInputStream(uri) ?: throw ModelError(Problem.MISSING, name)
            source.use { from -> File(folder, name).outputStream().use { from.copyTo(it) } }
        }
        val place = Place(context, folder.name, folder)
        val there = place.model.files.filter(place::has)
        if (there.isEmpty()) throw ModelError(Problem.MISSING, place.model.files.joinToString { it.name })
        there.forEach(place::content)
        val kept = File(context.filesDir, "$FOLDER/picked-${System.currentTimeMillis()}")
        kept.parentFile?.mkdirs()
        if (!folder.renameTo(kept)) throw IOException(kept.path)
    } finally {
        folder.deleteRecursively()
    }
}

private fun displayName(context: Context, uri: Uri): String {
    val columns = arrayOf(OpenableColumns.DISPLAY_NAME)
    val name = context.contentResolver.query(uri, columns, null, null, null)?.use { if (it.moveToFirst()) it.getString(0) else null }
    return name ?: uri.lastPathSegment ?: ""
}
