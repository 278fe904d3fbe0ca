package kerascompress.app

import android.content.Context
import android.os.Build
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.text.textclassifier.TextClassifier
import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import kerascompress.Inputs
import kerascompress.Model
import kerascompress.ModelFile
import org.tensorflow.lite.Interpreter

/** A file in an engine. Not for several threads at once. */
interface Engine : Closeable {
    val name: String

    /** The output for a text or a pair, and the inputs that were made of it; null where the engine makes its own. */
    fun answer(text: String, second: String?): Pair<FloatArray, Inputs?>
}

/** LiteRT: all tasks, with the ids of our tokenizer. */
class LiteRt(content: ByteBuffer, private val model: Model, private val file: ModelFile, threads: Int = 1) : Engine {
    private val interpreter = Interpreter(content, Interpreter.Options().setNumThreads(threads))
    override val name = "LiteRT"

    fun run(inputs: Inputs): FloatArray {
        val key = inputs.signature.name
        val output = FloatBuffer.allocate(interpreter.getOutputTensorFromSignature(model.outputName, key).numElements())
        val arrays = listOf(inputs.ids, inputs.mask, inputs.typeIds).map { IntBuffer.wrap(it) as Any }
        interpreter.runSignature(model.inputNames.zip(arrays).toMap(), mapOf<String, Any>(model.outputName to output), key)
        return output.array()
    }

    override fun answer(text: String, second: String?): Pair<FloatArray, Inputs?> {
        val inputs = model.inputs(file, text, second)
        return run(inputs) to inputs
    }

    override fun close() = interpreter.close()
}

/** MediaPipe's TextClassifier: classifiers alone, with the tokenizer that it has. */
class MediaPipe(context: Context, content: ByteBuffer, private val model: Model) : Engine {
    private val classifier = TextClassifier.createFromOptions(
        context,
        TextClassifier.TextClassifierOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetBuffer(content).build())
            .build(),
    )
    override val name = "MediaPipe"

    override fun answer(text: String, second: String?): Pair<FloatArray, Inputs?> {
        val result = classifier.classify(model.tokenizer.normalize(text)).classificationResult()
        val scores = result.classifications()[0].categories().associate { it.categoryName() to it.score() }
        return FloatArray(model.labels.size) { scores[model.labels[it]] ?: Float.NaN } to null
    }

    override fun close() = classifier.close()
}

/** A file with the engine that is to run it, as a list shows it. */
class Choice(val place: Place, val file: ModelFile, private val inMediaPipe: Boolean) {
    fun open(context: Context, threads: Int? = null): Engine {
        val content = place.content(file)
        return if (inMediaPipe) MediaPipe(context, content, place.model) else LiteRt(content, place.model, file, threads ?: 1)
    }

    val path = "${place.name}/${file.name}"

    /** Numbers of threads to time; MediaPipe chooses its own. */
    val threads = if (inMediaPipe) listOf(null) else listOf(1, 2, 4)

    override fun toString() = if (inMediaPipe) "$path · MediaPipe" else path
}

/** What can be run: each file in LiteRT, classifiers of one length in MediaPipe, too, which needs Android 7. */
fun choices(places: List<Place>) = places.flatMap { place ->
    place.model.files.filter { place.has(it) }.flatMap { file ->
        val inMediaPipe = place.model.runsInMediaPipe && file.signatures.size == 1 && Build.VERSION.SDK_INT >= 24
        (if (inMediaPipe) listOf(false, true) else listOf(false)).map { Choice(place, file, it) }
    }
}
