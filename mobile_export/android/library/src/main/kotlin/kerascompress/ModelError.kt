package kerascompress

/** What may be wrong with a model or an input. The app has a sentence for each, in each of its languages. */
enum class Problem { NOT_JSON, NO_METADATA, MISSING, VOCABULARY, DAMAGED, NOT_OF_THIS_MODEL, TASK, LENGTH, OUTPUT }

class ModelError(val problem: Problem, val received: String) : Exception("$problem: $received")
