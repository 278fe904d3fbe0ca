package kerascompress.app

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.RadioGroup
import android.widget.TextView
import kerascompress.ModelError
import kerascompress.Problem

/** Three screens side by side: classify while one types, tag words, compare two models. */
class MainActivity : Activity() {
    private val worker = Worker()
    private lateinit var screens: List<Screen>
    private var unread: Throwable? = null // why a model cannot be read

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        screens = listOf(ClassifyScreen(this, worker), TagScreen(this, worker), CompareScreen(this, worker))
        val tabs = view<RadioGroup>(R.id.screens)
        tabs.setOnCheckedChangeListener { _, checked -> show(checked) }
        tabs.check(savedInstanceState?.getInt(SCREEN) ?: R.id.to_classify)
        view<Button>(R.id.pick).setOnClickListener { pick() }
        load()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putInt(SCREEN, view<RadioGroup>(R.id.screens).checkedRadioButtonId)
    }

    override fun onDestroy() {
        worker.close { screens.forEach(Screen::close) }
        super.onDestroy()
    }

    private fun show(tab: Int) {
        val shown = mapOf(R.id.to_classify to R.id.classify, R.id.to_tag to R.id.tag, R.id.to_compare to R.id.compare)
        shown.forEach { (key, screen) -> view<View>(screen).visibility = if (key == tab) View.VISIBLE else View.GONE }
    }

    /** Reads all models again. */
    private fun load() = worker.run(this, { places(this) }) { result ->
        unread = result.exceptionOrNull() ?: result.getOrThrow().second.firstOrNull()
        tell(null)
        screens.forEach { it.offer(choices(result.getOrNull()?.first.orEmpty())) }
    }

    private fun pick() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
        try {
            startActivityForResult(intent.putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true), PICK)
        } catch (error: RuntimeException) { // a device without a file picker
            tell(error)
        }
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        if (requestCode != PICK || resultCode != RESULT_OK) return
        val several = data?.clipData?.let { clip -> List<Uri>(clip.itemCount) { clip.getItemAt(it).uri } }
        val uris = several ?: listOfNotNull(data?.data)
        worker.run(PICK, { keep(this, uris) }) { result -> if (result.isSuccess) load() else tell(result.exceptionOrNull()) }
    }

    /** Shows what went wrong, in the user's language; null: nothing did, unless a model cannot be read. */
    fun tell(now: Throwable?) {
        val error = now ?: unread
        val view = view<TextView>(R.id.message)
        view.visibility = if (error == null) View.GONE else View.VISIBLE
        view.text = error?.let(::inWords)
    }

    fun inWords(error: Throwable): String = when (error) {
        is ModelError -> getString(sentence(error.problem), error.received)
        else -> getString(R.string.problem_other, "${error.javaClass.simpleName} ${error.message.orEmpty().take(200)}")
    }

    private fun sentence(problem: Problem) = when (problem) {
        Problem.NOT_JSON -> R.string.problem_not_json
        Problem.NO_METADATA -> R.string.problem_no_metadata
        Problem.MISSING -> R.string.problem_missing
        Problem.VOCABULARY -> R.string.problem_vocabulary
        Problem.DAMAGED -> R.string.problem_damaged
        Problem.NOT_OF_THIS_MODEL -> R.string.problem_not_of_this_model
        Problem.TASK -> R.string.problem_task
        Problem.LENGTH -> R.string.problem_length
        Problem.OUTPUT -> R.string.problem_output
    }

    private companion object {
        const val PICK = 1
        const val SCREEN = "screen"
    }
}

/** A view of the layout, by its id. */
fun <T : View> Activity.view(id: Int): T {
    val found: View = findViewById(id)
    @Suppress("UNCHECKED_CAST")
    return found as T
}
