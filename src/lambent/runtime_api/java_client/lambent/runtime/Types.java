package lambent.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.util.HashMap;
import java.util.Map;

/** Generic types: what a type variable stands for, seen from a class further down. */
final class Types {
    private Types() {
    }

    /** The class behind a type; a variable or wildcard counts as its bound. */
    static Class<?> raw(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        }
        if (type instanceof ParameterizedType) {
            return (Class<?>) ((ParameterizedType) type).getRawType();
        }
        if (type instanceof GenericArrayType) {
            return Array.newInstance(raw(((GenericArrayType) type).getGenericComponentType()), 0).getClass();
        }
        return raw(bound(type));
    }

    /** The upper bound of a variable or wildcard; other types as they are. */
    static Type bound(Type type) {
        if (type instanceof TypeVariable) {
            return ((TypeVariable<?>) type).getBounds()[0];
        }
        return type instanceof WildcardType ? ((WildcardType) type).getUpperBounds()[0] : type;
    }

    /** The arguments that {@code type} gives to {@code ancestor}; null where it names none or is no such thing. */
    static Type[] arguments(Type type, Class<?> ancestor) {
        Class<?> raw = raw(type);
        if (!ancestor.isAssignableFrom(raw)) {
            return null;
        }
        if (raw == ancestor) {
            return type instanceof ParameterizedType ? ((ParameterizedType) type).getActualTypeArguments() : null;
        }
        Map<TypeVariable<?>, Type> known = bindings(type);
        for (Type each : raw.getGenericInterfaces()) {
            Type[] found = arguments(substitute(each, known), ancestor);
            if (found != null) {
                return found;
            }
        }
        Type parent = raw.getGenericSuperclass();
        return parent == null ? null : arguments(substitute(parent, known), ancestor);
    }

    /** One argument, or Object where there is none. */
    static Type argument(Type type, Class<?> ancestor, int index) {
        Type[] found = arguments(type, ancestor);
        return found == null ? Object.class : found[index];
    }

    /** What the variables of the class and of its ancestors stand for. */
    static Map<TypeVariable<?>, Type> bindings(Type type) {
        Map<TypeVariable<?>, Type> known = new HashMap<TypeVariable<?>, Type>();
        Type each = type;
        while (each != null) {
            Class<?> raw = raw(each);
            if (each instanceof ParameterizedType) {
                TypeVariable<?>[] variables = raw.getTypeParameters();
                Type[] arguments = ((ParameterizedType) each).getActualTypeArguments();
                for (int i = 0; i < variables.length; i++) {
                    known.put(variables[i], arguments[i]);
                }
            }
            Type parent = raw.getGenericSuperclass();
            each = parent == null ? null : substitute(parent, known);
        }
        return known;
    }

    static Type substitute(Type type, Map<TypeVariable<?>, Type> known) {
        if (known.isEmpty() || type instanceof Class) {
            return type;
        }
        if (type instanceof TypeVariable) {
            Type found = known.get(type);
            return found == null ? type : found;
        }
        if (type instanceof GenericArrayType) {
            return new Arrayed(substitute(((GenericArrayType) type).getGenericComponentType(), known));
        }
        if (type instanceof ParameterizedType) {
            Type[] arguments = ((ParameterizedType) type).getActualTypeArguments().clone();
            for (int i = 0; i < arguments.length; i++) {
                arguments[i] = substitute(arguments[i], known);
            }
            return new Parameterized((ParameterizedType) type, arguments);
        }
        return substitute(bound(type), known);
    }

    private static final class Parameterized implements ParameterizedType {
        private final ParameterizedType original;
        private final Type[] arguments;

        Parameterized(ParameterizedType original, Type[] arguments) {
            this.original = original;
            this.arguments = arguments;
        }

        @Override
        public Type[] getActualTypeArguments() {
            return arguments;
        }

        @Override
        public Type getRawType() {
            return original.getRawType();
        }

        @Override
        public Type getOwnerType() {
            return original.getOwnerType();
        }
    }

    private static final class Arrayed implements GenericArrayType {
        private final Type component;

        Arrayed(Type component) {
            this.component = component;
        }

        @Override
        public Type getGenericComponentType() {
            return component;
        }
    }
}
