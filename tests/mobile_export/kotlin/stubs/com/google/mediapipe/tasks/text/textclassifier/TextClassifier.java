package com.google.mediapipe.tasks.text.textclassifier;

import android.content.Context;
import com.google.mediapipe.tasks.core.BaseOptions;

public final class TextClassifier implements AutoCloseable {
    public abstract static class TextClassifierOptions {
        public abstract static class Builder {
            public abstract Builder setBaseOptions(BaseOptions value);

            public abstract TextClassifierOptions build();
        }

        public static native Builder builder();
    }

    public static native TextClassifier createFromOptions(Context context, TextClassifierOptions options);

    public native TextClassifierResult classify(String inputText);

    @Override
    public native void close();
}
