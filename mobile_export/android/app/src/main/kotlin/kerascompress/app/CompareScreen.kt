package kerascompress.app

import android.content.Context
import android.content.Intent
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import android.view.WindowManager
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import java.io.File
import kerascompress.Timed
import kerascompress.benchmark
import kerascompress.selfTest
import org.json.JSONArray
import org.json.JSONObject

/** Two models on one text, the self-test on the exporting machine's texts, and the benchmark. */
class CompareScreen(private val activity: MainActivity, private val worker: Worker) : Screen {
    private val text = activity.view<EditText>(R.id.compare_text)
    private val result = activity.view<TextView>(R.id.result)
    private val share = activity.view<Button>(R.id.share)
    private val views = listOf(R.id.first_scores, R.id.second_scores).map { activity.view<TextView>(it) }
    private val readers = listOf(R.id.first_model, R.id.second_model).map { Reader(activity, worker, it) { true } }
    private var json = ""

    init {
        text.onChange(::read)
        activity.view<Button>(R.id.self_test).setOnClickListener { test() }
        activity.view<Button>(R.id.benchmark).setOnClickListener { measure() }
        share.setOnClickListener {
            val send = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, json)
            activity.startActivity(Intent.createChooser(send, activity.getString(R.string.share)))
        }
    }

    override fun offer(choices: List<Choice>) = readers.forEach { it.offer(choices, ::read) }

    private fun read() = readers.zip(views).forEach { (reader, view) ->
        reader.read(text.text.toString(), null) { facts, answer -> view.text = "$facts\n$answer" }
    }

    private fun test() {
        val choices = readers.mapNotNull { it.choice }.distinctBy { it.path }
        result.setText(R.string.running)
        worker.run(this, { choices.joinToString("\n", transform = ::tested) }) {
            activity.tell(it.exceptionOrNull())
            result.text = it.getOrNull().orEmpty()
        }
    }

    private fun tested(choice: Choice): String {
        val (model, file) = choice.place.model to choice.file
        val parity = choice.place.parity() ?: return activity.getString(R.string.no_parity, choice.path)
        val found = LiteRt(choice.place.content(file), model, file).use { selfTest(model, file, parity, it::run) }
        val verdict = activity.getString(if (found.passed) R.string.passed else R.string.failed)
        return activity.getString(
            R.string.self_test_result, choice.path, found.sameIds, found.texts, found.largestDifference, found.tolerance, verdict,
        )
    }

    private fun measure() {
        val choices = readers.mapNotNull { it.choice }.distinct()
        val sample = text.text.toString()
        result.setText(R.string.running)
        activity.window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        worker.run(share, { measured(choices, sample) }) { // no other task takes its place: the flag must go again
            activity.window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
            activity.tell(it.exceptionOrNull())
            json = JSONArray(it.getOrNull().orEmpty().map { row -> JSONObject(row) }).toString(1)
            share.isEnabled = it.isSuccess
            result.text = it.getOrNull()?.let(::inWords).orEmpty()
        }
    }

    /** Rows with the keys of `keras_compress benchmark --json`, and more; MediaPipe's time holds its tokenizer's. */
    private fun measured(choices: List<Choice>, sample: String): List<Map<String, Any?>> {
        val before = heat()
        val engines = ArrayList<Engine>()
        try {
            val timed = choices.flatMap { choice -> choice.threads.map { choice to it } }.map { (choice, threads) ->
                val engine = choice.open(activity, threads).also(engines::add)
                val inputs = choice.place.model.inputs(choice.file, sample)
                val facts = mapOf(
                    "path" to choice.path, "device" to device(), "threads" to threads,
                    "sequence_length" to inputs.signature.length, "engine" to engine.name,
                )
                if (engine is LiteRt) Timed(facts) { engine.run(inputs) } else Timed(facts) { engine.answer(sample, null) }
            }
            val rows = benchmark(timed)
            val battery = activity.getSystemService(Context.BATTERY_SERVICE) as BatteryManager
            return rows.map {
                it + mapOf(
                    "battery_percent" to battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY),
                    "charging" to battery.isCharging, "thermal_before" to before, "thermal_after" to heat(),
                )
            }
        } finally {
            engines.forEach(Engine::close)
        }
    }

    private fun inWords(rows: List<Map<String, Any?>>): String {
        val lines = rows.map {
            activity.getString(R.string.row, it["path"], it["engine"], it["threads"] ?: "–", it["latency_ms_p50"], it["latency_ms_p90"])
        }
        val row = rows.firstOrNull() ?: return activity.getString(R.string.no_model)
        val power = activity.getString(if (row["charging"] == true) R.string.charging else R.string.not_charging)
        val state = activity.getString(R.string.state, row["battery_percent"], power, row["thermal_before"], row["thermal_after"])
        return (lines + state + row["device"].toString()).joinToString("\n")
    }

    /** How hot the phone is, in words of `PowerManager`; Android tells it from version 10 on. */
    private fun heat(): String {
        if (Build.VERSION.SDK_INT < 29) return "unknown"
        val status = (activity.getSystemService(Context.POWER_SERVICE) as PowerManager).currentThermalStatus
        return listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown").getOrElse(status) { "$status" }
    }

    /** As `mobile_export/benchmark.py` writes it: the system, the processor, and what its instructions mean for int8. */
    private fun device(): String {
        val dot = "asimddp" in runCatching { File("/proc/cpuinfo").readText() }.getOrDefault("").split(" ", "\n")
        val means = if (dot) "asimddp (int8 can be about 3 times as fast as float32)" else "no dot-product instruction known"
        return "Android ${Build.VERSION.RELEASE} ${Build.SUPPORTED_ABIS.first()}, ${Build.MANUFACTURER} ${Build.MODEL}, $means"
    }

    override fun close() = readers.forEach(Reader::close)
}
