package lambent.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Collections;
import java.util.Deque;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.NavigableSet;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;

/**
 * Values out of JSON, made to fit the type that a handler takes, with the leniency of AWS's serialization: unknown properties are ignored,
 * a single value counts as an array of one and an array of one as its value, empty strings and arrays as null objects, unknown names of
 * enums as null, null as the zero of a primitive type.
 */
final class Binder {
    private final boolean dateIsSeconds;

    private Binder(boolean dateIsSeconds) {
        this.dateIsSeconds = dateIsSeconds;
    }

    /** {@code value} (of {@link JsonReader}) as a {@code type}. */
    static Object bind(Object value, Type type) throws JsonException {
        return new Binder(EventModels.isModel(Types.raw(type))).value(value, type);
    }

    private Object value(Object value, Type type) throws JsonException {
        Class<?> raw = Types.raw(type);
        if (raw == Optional.class) {
            return Optional.ofNullable(value == null ? null : value(value, Types.argument(type, Optional.class, 0)));
        }
        if (value == null) {
            return ofNull(raw);
        }
        if (raw == Object.class || raw == java.io.Serializable.class || raw == Comparable.class) {
            return JsonReader.plain(value);
        }
        if (raw.isArray() && raw != char[].class && !(raw == byte[].class && value instanceof String)) {
            Type component = type instanceof GenericArrayType ? ((GenericArrayType) type).getGenericComponentType() : raw.getComponentType();
            return array(value, component);
        }
        if (Collection.class.isAssignableFrom(raw) || raw == Iterable.class) {
            return collection(value, type, raw);
        }
        if (Map.class.isAssignableFrom(raw)) {
            return map(value, type, raw);
        }
        if (value instanceof List && Scalars.isScalar(raw) || value instanceof List && ((List<?>) value).size() == 1) {
            List<?> list = (List<?>) value;
            if (list.size() != 1) {
                throw unfit("Array value", type);
            }
            return value(list.get(0), type);
        }
        if (Scalars.isScalar(raw)) {
            return Scalars.from(value, raw, dateIsSeconds);
        }
        return bean(value, type, raw);
    }

    private static Object ofNull(Class<?> raw) {
        if (raw.isPrimitive() && raw != void.class) {
            return Array.get(Array.newInstance(raw, 1), 0);
        }
        if (raw == OptionalInt.class) {
            return OptionalInt.empty();
        }
        if (raw == OptionalLong.class) {
            return OptionalLong.empty();
        }
        return raw == OptionalDouble.class ? OptionalDouble.empty() : null;
    }

    private Object array(Object value, Type component) throws JsonException {
        Class<?> raw = Types.raw(component);
        List<?> items = items(value);
        Object array = Array.newInstance(raw, items.size());
        for (int i = 0; i < items.size(); i++) {
            Array.set(array, i, value(items.get(i), component));
        }
        return array;
    }

    private static List<?> items(Object value) {
        return value instanceof List ? (List<?>) value : Collections.singletonList(value);
    }

    private Object collection(Object value, Type type, Class<?> raw) throws JsonException {
        if ("".equals(value)) {
            return null;
        }
        Type item = Types.argument(type, Iterable.class, 0);
        Collection<Object> collection = emptyCollection(raw, item);
        for (Object each : items(value)) {
            collection.add(value(each, item));
        }
        return collection;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private Collection<Object> emptyCollection(Class<?> raw, Type item) throws JsonException {
        if (raw.isAssignableFrom(ArrayList.class)) {
            return new ArrayList<Object>();
        }
        if (raw.isAssignableFrom(HashSet.class)) {
            return new HashSet<Object>();
        }
        if (raw == java.util.EnumSet.class) {
            return (Collection) java.util.EnumSet.noneOf((Class) Types.raw(item));
        }
        if (raw == SortedSet.class || raw == NavigableSet.class) {
            return new TreeSet<Object>();
        }
        if (raw.isAssignableFrom(LinkedList.class)) {
            return raw == Deque.class ? new ArrayDeque<Object>() : new LinkedList<Object>();
        }
        return (Collection<Object>) instance(raw);
    }

    private Object map(Object value, Type type, Class<?> raw) throws JsonException {
        if ("".equals(value) || value instanceof List && ((List<?>) value).isEmpty()) {
            return null;
        }
        if (!(value instanceof Map)) {
            throw unfit(kind(value), type);
        }
        Type keyType = Types.argument(type, Map.class, 0);
        Type itemType = Types.argument(type, Map.class, 1);
        Map<Object, Object> map = emptyMap(raw, keyType);
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
            Class<?> key = Types.raw(keyType);
            Object name = key == Object.class || key == String.class ? entry.getKey() : Scalars.from(entry.getKey(), key, dateIsSeconds);
            map.put(name, value(entry.getValue(), itemType));
        }
        return map;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private Map<Object, Object> emptyMap(Class<?> raw, Type key) throws JsonException {
        if (raw.isAssignableFrom(LinkedHashMap.class)) {
            return new LinkedHashMap<Object, Object>();
        }
        if (raw == EnumMap.class) {
            return new EnumMap(Types.raw(key));
        }
        if (SortedMap.class.isAssignableFrom(raw) && raw.isAssignableFrom(TreeMap.class)) {
            return new TreeMap<Object, Object>();
        }
        if (raw == ConcurrentMap.class) {
            return new ConcurrentHashMap<Object, Object>();
        }
        return (Map<Object, Object>) instance(raw);
    }

    private Object bean(Object value, Type type, Class<?> raw) throws JsonException {
        if ("".equals(value) || value instanceof List && ((List<?>) value).isEmpty()) {
            return null;
        }
        if (!(value instanceof Map)) {
            throw unfit(kind(value), type);
        }
        Beans beans = Beans.of(raw);
        Map<TypeVariable<?>, Type> known = Types.bindings(type);
        Map<?, ?> object = (Map<?, ?>) value;
        Object bean = beans.arguments.isEmpty() ? instance(raw) : constructed(beans, object, known);
        for (Map.Entry<?, ?> entry : object.entrySet()) {
            Beans.Property property = beans.byName.get(entry.getKey());
            if (property != null) {
                set(bean, property, within(entry.getValue(), property, known, raw));
            }
        }
        return bean;
    }

    private Object constructed(Beans beans, Map<?, ?> object, Map<TypeVariable<?>, Type> known) throws JsonException {
        Object[] arguments = new Object[beans.constructor.getParameterTypes().length];
        for (int i = 0; i < arguments.length; i++) {
            Beans.Property argument = beans.arguments.get(i);
            arguments[i] = within(object.get(argument.name), argument, known, beans.type);
        }
        return make(beans.constructor, arguments);
    }

    private Object within(Object value, Beans.Property property, Map<TypeVariable<?>, Type> known, Class<?> raw) throws JsonException {
        try {
            return value(value, Types.substitute(property.type, known));
        } catch (JsonException inner) {
            String text = inner.getMessage();
            String step = raw.getName() + "[\"" + property.name + "\"]";
            String chain = " (through reference chain: ";
            int at = text.indexOf(chain);
            throw new JsonException(
                    at < 0 ? text + chain + step + ")" : text.substring(0, at) + chain + step + "->" + text.substring(at + chain.length()),
                    inner.getCause());
        }
    }

    private static void set(Object bean, Beans.Property property, Object value) throws JsonException {
        try {
            if (property.setter != null) {
                property.setter.invoke(bean, value);
            } else {
                property.field.set(bean, value);
            }
        } catch (InvocationTargetException thrown) {
            Throwable cause = thrown.getCause();
            throw new JsonException(String.valueOf(cause.getMessage()), cause);
        } catch (IllegalAccessException closed) {
            throw new JsonException("Cannot set property " + property.name + " of " + bean.getClass().getName(), closed);
        }
    }

    private static Object instance(Class<?> raw) throws JsonException {
        if (raw.isInterface() || Modifier.isAbstract(raw.getModifiers())) {
            throw new JsonException("Cannot construct instance of `" + raw.getName()
                    + "` (no Creators, like default constructor, exist): abstract types either need to be mapped to concrete types,"
                    + " have custom deserializer, or contain additional type information");
        }
        Constructor<?> constructor = Beans.of(raw).constructor;
        if (constructor == null || constructor.getParameterTypes().length != 0 && !Beans.isRecord(raw)) {
            boolean inner = raw.getEnclosingClass() != null && !Modifier.isStatic(raw.getModifiers());
            throw new JsonException("Cannot construct instance of `" + raw.getName() + "` " + (inner
                    ? "(non-static inner classes like this can only by instantiated using default, no-argument constructor)"
                    : "(no Creators, like default constructor, exist): cannot deserialize from Object value"
                            + " (no delegate- or property-based Creator)"));
        }
        return make(constructor, new Object[0]);
    }

    private static Object make(Constructor<?> constructor, Object[] arguments) throws JsonException {
        try {
            return constructor.newInstance(arguments);
        } catch (InvocationTargetException thrown) {
            Throwable cause = thrown.getCause();
            throw new JsonException("Cannot construct instance of `" + constructor.getDeclaringClass().getName() + "`, problem: "
                    + cause.getMessage(), cause);
        } catch (ReflectiveOperationException closed) {
            throw new JsonException("Cannot construct instance of `" + constructor.getDeclaringClass().getName() + "`", closed);
        }
    }

    static JsonException unfit(String kind, Type type) {
        return new JsonException("Cannot deserialize value of type `" + type.getTypeName() + "` from " + kind);
    }

    static String kind(Object value) {
        if (value instanceof Map) {
            return "Object value";
        }
        if (value instanceof List) {
            return "Array value";
        }
        if (value instanceof String) {
            return "String value \"" + value + "\"";
        }
        return value instanceof Boolean ? "Boolean value" : value instanceof JsonReader.Decimal ? "Floating-point value" : "Integer value";
    }

    /** A string of base 64 as bytes. */
    static byte[] base64(String text) throws JsonException {
        try {
            return Base64.getDecoder().decode(text);
        } catch (IllegalArgumentException malformed) {
            throw new JsonException("Cannot access contents of base64 value: " + malformed.getMessage(), malformed);
        }
    }

}
