package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.util.Map;

public final class Interpreter implements AutoCloseable {
    public static class Options {
        public native Options setNumThreads(int numThreads);
    }

    public Interpreter(ByteBuffer model, Options options) {}

    public native Tensor getOutputTensorFromSignature(String outputName, String signatureKey);

    public native void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signatureKey);

    @Override
    public native void close();
}
