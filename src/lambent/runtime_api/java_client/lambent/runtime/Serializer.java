package lambent.runtime;

import com.amazonaws.services.lambda.runtime.CustomPojoSerializer;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Type;
import java.util.Iterator;
import java.util.ServiceLoader;

/** Between JSON and the types of a handler: built in, or the function's own {@link CustomPojoSerializer}. */
final class Serializer {
    private final CustomPojoSerializer custom; // null for the built-in one

    private Serializer(CustomPojoSerializer custom) {
        this.custom = custom;
    }

    static Serializer find(ClassLoader loader) {
        if (loader.getResource("META-INF/services/" + CustomPojoSerializer.class.getName()) == null) {
            return new Serializer(null);
        }
        Iterator<CustomPojoSerializer> found = ServiceLoader.load(CustomPojoSerializer.class, loader).iterator();
        Serializer serializer = new Serializer(found.hasNext() ? found.next() : null);
        if (found.hasNext()) {
            throw new IllegalStateException("Too many serializers provided inside the META-INF/services folder, only one is allowed");
        }
        return serializer;
    }

    Object read(byte[] event, Type type) {
        if (custom != null) {
            return custom.fromJson(new ByteArrayInputStream(event), type);
        }
        try {
            return Binder.bind(JsonReader.read(event), type);
        } catch (JsonException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    void write(Object value, Output output, Type type) {
        if (custom != null) {
            custom.toJson(value, output, type);
            return;
        }
        try {
            output.write(JsonWriter.write(value, type));
        } catch (IOException unwritable) {
            throw new UncheckedIOException(unwritable);
        }
    }
}
