package lambent.runtime;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;

/**
 * The frames of {@code runtime_api/frames.py} over the inherited socket.
 *
 * <p>Java has no public way to use a descriptor that it inherited, and a socket cannot be opened anew through /proc. So the number is put
 * into a {@link FileDescriptor}; the jar's manifest opens {@code java.io} for that. Reading and writing are then one system call each.
 *
 * <p>An answer is held back until the next event is asked for and leaves in one write with that question. When the node has gone, the
 * process ends quietly.
 */
final class Channel {
    static final int RESPONSE = 0x12;
    static final int ERROR = 0x13;
    static final int INIT_ERROR = 0x14;

    private static final int INVOKE = 0x01;
    private static final int NEXT = 0x11;
    private static final int HEADER = 9;
    private static final byte[] NOTHING = new byte[0];

    private final FileInputStream in;
    private final FileOutputStream out;
    private final byte[] buffer = new byte[8192]; // the virtual machine copies larger reads through memory of its own
    private byte[] held = NOTHING;

    Channel(int descriptor) throws IOException {
        FileDescriptor socket = descriptor(descriptor);
        in = new FileInputStream(socket);
        out = new FileOutputStream(socket);
    }

    /** The descriptor of a number. */
    static FileDescriptor descriptor(int number) throws IOException {
        FileDescriptor descriptor = new FileDescriptor();
        try {
            Field field = FileDescriptor.class.getDeclaredField("fd");
            field.setAccessible(true);
            field.setInt(descriptor, number);
        } catch (ReflectiveOperationException | RuntimeException refused) {
            throw new IOException("this Java does not let descriptors be inherited", refused);
        }
        return descriptor;
    }

    /** Send what is held back, ask for the next event, and wait for it. */
    Invocation next() throws IOException {
        byte[] frames = new byte[held.length + HEADER];
        System.arraycopy(held, 0, frames, 0, held.length);
        frames[held.length] = NEXT;
        held = NOTHING;
        out.write(frames);
        int have = 0;
        while (have < HEADER) {
            have += read(buffer, have, buffer.length - have);
        }
        if (buffer[0] != INVOKE) {
            throw new IOException("unexpected frame " + buffer[0] + " from the platform");
        }
        int headLength = integer(1);
        int bodyLength = integer(5);
        byte[] head = new byte[headLength];
        byte[] body = new byte[bodyLength];
        int inHead = Math.min(have - HEADER, headLength);
        System.arraycopy(buffer, HEADER, head, 0, inHead);
        int inBody = have - HEADER - inHead;
        System.arraycopy(buffer, HEADER + inHead, body, 0, inBody);
        fill(head, inHead);
        fill(body, inBody);
        return new Invocation(new String(head, StandardCharsets.UTF_8), body);
    }

    /** Keep a frame until {@link #next} or {@link #flush}. */
    void hold(int type, String head, byte[] body, int length) {
        byte[] encoded = head.getBytes(StandardCharsets.UTF_8);
        byte[] frame = new byte[HEADER + encoded.length + length];
        frame[0] = (byte) type;
        put(frame, 1, encoded.length);
        put(frame, 5, length);
        System.arraycopy(encoded, 0, frame, HEADER, encoded.length);
        System.arraycopy(body, 0, frame, HEADER + encoded.length, length);
        held = frame;
    }

    /** Send what is held back. */
    void flush() throws IOException {
        byte[] frame = held;
        held = NOTHING;
        out.write(frame);
    }

    private void fill(byte[] target, int from) throws IOException {
        int have = from;
        while (have < target.length) {
            have += read(target, have, target.length - have);
        }
    }

    private int read(byte[] target, int offset, int length) throws IOException {
        int count = in.read(target, offset, length);
        if (count < 0) {
            Runtime.getRuntime().halt(0);
        }
        return count;
    }

    private int integer(int at) {
        return (buffer[at] & 255) << 24 | (buffer[at + 1] & 255) << 16 | (buffer[at + 2] & 255) << 8 | buffer[at + 3] & 255;
    }

    private static void put(byte[] frame, int at, int value) {
        frame[at] = (byte) (value >>> 24);
        frame[at + 1] = (byte) (value >>> 16);
        frame[at + 2] = (byte) (value >>> 8);
        frame[at + 3] = (byte) value;
    }
}
