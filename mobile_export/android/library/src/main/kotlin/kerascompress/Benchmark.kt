package kerascompress

import kotlin.math.ceil
import kotlin.math.floor

/** What is timed: the facts that its row has beside the times, and one forward pass. */
class Timed(val facts: Map<String, Any?>, val run: () -> Unit)

/**
 * Times forward passes as `keras_compress benchmark` does: one of each per round, so that all meet the same disturbances.
 *
 * @param warmup rounds that do not count.
 * @return a row for each, with the keys of `benchmark --json`.
 */
fun benchmark(timed: List<Timed>, runs: Int = 50, warmup: Int = 10, clock: () -> Long = System::nanoTime): List<Map<String, Any?>> {
    val times = List(timed.size) { DoubleArray(runs) }
    for (round in -warmup until runs) {
        timed.forEachIndexed { index, each ->
            val start = clock()
            each.run()
            if (round >= 0) times[index][round] = (clock() - start) / 1e6
        }
    }
    return timed.mapIndexed { index, each ->
        val sorted = times[index].sorted()
        each.facts + mapOf("latency_ms_p50" to percentile(sorted, 0.5), "latency_ms_p90" to percentile(sorted, 0.9), "runs" to runs)
    }
}

/** Between the two values beside the place, as numpy does it. */
fun percentile(sorted: List<Double>, share: Double): Double {
    val place = share * (sorted.size - 1)
    val low = sorted[floor(place).toInt()]
    return low + (sorted[ceil(place).toInt()] - low) * (place - floor(place))
}
