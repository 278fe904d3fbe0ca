package kerascompress.app

import android.os.SystemClock
import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.EditText
import android.widget.Spinner
import android.widget.TextView
import kerascompress.Inputs
import kerascompress.Model
import kerascompress.scores
import kerascompress.tags
import java.util.Locale

/** One of the app's screens. */
interface Screen {
    /** Offers the models that the screen can show. */
    fun offer(choices: List<Choice>)

    /** Frees the engines, on the worker's thread. */
    fun close()
}

/** A list of models, the engine of the one that is chosen, and a text that it reads anew after each change. */
class Reader(private val activity: MainActivity, private val worker: Worker, list: Int, private val suits: (Model) -> Boolean) {
    private val spinner = activity.view<Spinner>(list)
    private var offered = emptyList<Choice>()
    private var opened: Choice? = null
    private var engine: Engine? = null // of the worker's thread
    val choice get() = offered.getOrNull(spinner.selectedItemPosition)

    fun offer(choices: List<Choice>, onChange: () -> Unit) {
        offered = choices.filter { suits(it.place.model) }
        spinner.adapter = ArrayAdapter(activity, android.R.layout.simple_spinner_dropdown_item, offered)
        spinner.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = onChange()

            override fun onNothingSelected(parent: AdapterView<*>?) = onChange()
        }
        if (offered.isEmpty()) onChange()
    }

    /** Runs the model on a text, or a pair; [show] gets words for the facts and for the answer. */
    fun read(text: String, second: String?, show: (String, String) -> Unit) {
        val choice = choice ?: return show(activity.getString(R.string.no_model), "")
        worker.run(this, {
            val engine = open(choice)
            val start = SystemClock.elapsedRealtimeNanos()
            val (output, inputs) = engine.answer(text, second)
            val milliseconds = (SystemClock.elapsedRealtimeNanos() - start) / 1e6
            facts(milliseconds, inputs) to inWords(choice.place.model, output, inputs, text)
        }) { result ->
            activity.tell(result.exceptionOrNull())
            val (facts, answer) = result.getOrElse { activity.inWords(it) to "" } // beside another model's answer, too
            show(facts, answer)
        }
    }

    private fun open(choice: Choice): Engine {
        if (choice != opened) {
            close()
            engine = choice.open(activity)
            opened = choice
        }
        return engine!!
    }

    fun close() {
        engine?.close()
        engine = null
        opened = null
    }

    private fun facts(milliseconds: Double, inputs: Inputs?): String {
        if (inputs == null) return activity.getString(R.string.facts_only_time, milliseconds)
        val used = activity.getString(R.string.facts, milliseconds, inputs.encoding.ids.size, inputs.signature.length)
        return if (inputs.encoding.truncated) "$used · ${activity.getString(R.string.cut)}" else used
    }

    private fun inWords(model: Model, output: FloatArray, inputs: Inputs?, text: String): String {
        if (model.perToken) {
            return model.words(text).zip(tags(model, inputs!!, output)).joinToString("\n") { (word, tag) -> "$word\t${tag ?: "–"}" }
        }
        return scores(model, output).take(10).joinToString("\n") { score ->
            val value = if (model.answer == "number") "%.4g".format(Locale.ROOT, score.value) else "%.1f %%".format(Locale.ROOT, 100 * score.value)
            "${if (score.holds) "●" else "○"} ${score.label}\t$value"
        }
    }
}

/** Calls back after each change of a text. */
fun EditText.onChange(action: () -> Unit) = addTextChangedListener(object : TextWatcher {
    override fun beforeTextChanged(s: CharSequence?, start: Int, count: Int, after: Int) = Unit

    override fun onTextChanged(s: CharSequence?, start: Int, before: Int, count: Int) = Unit

    override fun afterTextChanged(s: Editable?) = action()
})

/** Scores while one types. */
class ClassifyScreen(activity: MainActivity, worker: Worker) : Screen {
    private val text = activity.view<EditText>(R.id.classify_text)
    private val second = activity.view<EditText>(R.id.classify_second)
    private val facts = activity.view<TextView>(R.id.classify_facts)
    private val scores = activity.view<TextView>(R.id.classify_scores)
    private val reader = Reader(activity, worker, R.id.classify_model) { !it.perToken }

    init {
        listOf(text, second).forEach { it.onChange(::read) }
    }

    override fun offer(choices: List<Choice>) = reader.offer(choices, ::read)

    private fun read() {
        val texts = reader.choice?.place?.model?.texts
        second.visibility = if (texts == "pair" || texts == "either") View.VISIBLE else View.GONE
        val other = second.text.toString()
        val pair = texts == "pair" || texts == "either" && other.isNotEmpty()
        reader.read(text.text.toString(), if (pair) other else null) { about, answer ->
            facts.text = about
            scores.text = answer
        }
    }

    override fun close() = reader.close()
}

/** A label for each word while one types. */
class TagScreen(activity: MainActivity, worker: Worker) : Screen {
    private val text = activity.view<EditText>(R.id.tag_text)
    private val facts = activity.view<TextView>(R.id.tag_facts)
    private val words = activity.view<TextView>(R.id.tag_words)
    private val reader = Reader(activity, worker, R.id.tag_model) { it.perToken }

    init {
        text.onChange(::read)
    }

    override fun offer(choices: List<Choice>) = reader.offer(choices, ::read)

    private fun read() = reader.read(text.text.toString(), null) { about, answer ->
        facts.text = about
        words.text = answer
    }

    override fun close() = reader.close()
}
