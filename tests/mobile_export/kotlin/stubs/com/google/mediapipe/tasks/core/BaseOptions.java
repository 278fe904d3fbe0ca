package com.google.mediapipe.tasks.core;

import java.nio.ByteBuffer;

public abstract class BaseOptions {
    public abstract static class Builder {
        public abstract Builder setModelAssetBuffer(ByteBuffer value);

        public final native BaseOptions build();
    }

    public static native Builder builder();
}
