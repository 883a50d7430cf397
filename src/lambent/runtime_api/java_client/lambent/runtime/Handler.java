package lambent.runtime;

/** A loaded handler, whatever its form. */
interface Handler {
    /** Answer an event into {@code output}. Throws what the function throws, or a {@link Fault}. */
    void call(byte[] event, Output output, FunctionContext context) throws Throwable;
}
