package lambent.runtime;

import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.io.UnsupportedEncodingException;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;

/** Where an answer is collected; it lets its bytes be read without a copy. */
final class Output extends ByteArrayOutputStream {
    static final Charset UTF_8 = StandardCharsets.UTF_8;
    private static final int KEPT_MOST = 1 << 20;

    Output() {
        super(1024);
    }

    byte[] bytes() {
        return buf;
    }

    /** Empty it for the next invocation; a large answer's memory is given back. */
    void renew() {
        reset();
        if (buf.length > KEPT_MOST) {
            buf = new byte[1024];
        }
    }

    /** UTF-8 text straight to a descriptor, without a buffer: what was printed is out, however the process ends. */
    static PrintStream unbuffered(FileDescriptor descriptor) {
        try {
            return new PrintStream(new FileOutputStream(descriptor), false, "UTF-8");
        } catch (UnsupportedEncodingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
