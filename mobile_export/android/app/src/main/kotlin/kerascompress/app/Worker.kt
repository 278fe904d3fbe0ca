package kerascompress.app

import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.os.SystemClock

/** Runs models off the screen's thread, one after the other. */
class Worker {
    private val thread = HandlerThread("models").apply { start() }
    private val there = Handler(thread.looper)
    private val here = Handler(Looper.getMainLooper())
    private var closed = false

    /** Runs [work], then [show] on the screen's thread. Of what waits for one [screen] only the newest runs. */
    fun <T> run(screen: Any, work: () -> T, show: (Result<T>) -> Unit) {
        there.removeCallbacksAndMessages(screen)
        val task = Runnable {
            val result = runCatching(work) // whatever goes wrong is told, nothing ends the app
            here.post { if (!closed) show(result) }
        }
        there.postAtTime(task, screen, SystemClock.uptimeMillis())
    }

    /** Runs what is left, then [last], and ends. */
    fun close(last: () -> Unit) {
        closed = true
        there.post { runCatching(last) }
        thread.quitSafely()
    }
}
