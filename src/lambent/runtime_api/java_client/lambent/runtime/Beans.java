package lambent.runtime;

import java.lang.reflect.AccessibleObject;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The properties of a class, as AWS's serialization sees them: getters and setters by the rules of JavaBeans, and public fields.
 *
 * <p>A getter is public; a setter may be anything, and may give back anything. {@code getURL} is the property {@code URL}, {@code getName}
 * is {@code name}. Properties with a field of their name come in the order of the fields, ancestors first, then the rest by name. A private
 * field alone is none. Records are read through their components.
 */
final class Beans {
    private static final Map<Class<?>, Beans> KNOWN = new HashMap<Class<?>, Beans>();

    final Class<?> type;
    final List<Property> properties; // all, in order
    final Map<String, Property> byName = new HashMap<String, Property>(); // those that can be set, by their names in JSON
    final Constructor<?> constructor; // null where there is none that could be used
    final List<Property> arguments; // of the constructor

    /** One property. At least one of its members is not null. */
    static final class Property {
        final String name; // in JSON
        Method getter;
        Field field;
        Method setter;
        Type type; // of what is set

        Property(String name) {
            this.name = name;
        }
    }

    private Beans(Class<?> type) {
        this.type = type;
        Map<String, Property> found = new LinkedHashMap<String, Property>();
        Map<String, String> names = EventModels.names(type);
        for (Field field : fields(type)) {
            property(found, names, field.getName()).field = Modifier.isPublic(field.getModifiers()) ? open(field) : null;
        }
        accessors(found, names);
        properties = new ArrayList<Property>();
        for (Property each : found.values()) {
            if (each.setter != null || each.field != null) {
                each.type = each.setter != null ? each.setter.getGenericParameterTypes()[0] : each.field.getGenericType();
                byName.put(each.name, each);
            }
            if (each.getter != null || each.setter != null || each.field != null) {
                properties.add(each);
            }
        }
        constructor = constructor(type);
        arguments = arguments(names);
    }

    static synchronized Beans of(Class<?> type) {
        Beans known = KNOWN.get(type);
        if (known == null) {
            known = new Beans(type);
            KNOWN.put(type, known);
        }
        return known;
    }

    static boolean isRecord(Class<?> type) {
        return type.getSuperclass() != null && "java.lang.Record".equals(type.getSuperclass().getName());
    }

    private static Property property(Map<String, Property> found, Map<String, String> names, String natural) {
        String name = names.containsKey(natural) ? names.get(natural) : natural;
        Property property = found.get(name);
        if (property == null) {
            property = new Property(name);
            found.put(name, property);
        }
        return property;
    }

    private void accessors(Map<String, Property> found, Map<String, String> names) {
        boolean record = isRecord(type);
        for (Method method : methods(type)) {
            String name = method.getName();
            int parameters = method.getParameterTypes().length;
            if (parameters == 0 && Modifier.isPublic(method.getModifiers()) && method.getReturnType() != void.class) {
                String natural = record && found.containsKey(name) ? name : gotten(method);
                if (natural != null) {
                    Property property = property(found, names, natural);
                    if (property.getter == null || name.startsWith("get")) {
                        property.getter = open(method);
                    }
                }
            } else if (parameters == 1 && name.startsWith("set") && name.length() > 3) {
                Property property = property(found, names, decapitalized(name.substring(3)));
                if (property.setter == null || isBetter(method, property)) {
                    property.setter = open(method);
                }
            }
        }
    }

    /** Of two setters, that of the getter's type; then one that takes a string. */
    private static boolean isBetter(Method setter, Property property) {
        Class<?> takes = setter.getParameterTypes()[0];
        Class<?> took = property.setter.getParameterTypes()[0];
        Class<?> given = property.getter == null ? String.class : property.getter.getReturnType();
        return takes == given && took != given || takes == String.class && took != given && took != String.class;
    }

    private static String gotten(Method method) {
        String name = method.getName();
        if (name.startsWith("get") && name.length() > 3 && !name.equals("getClass")) {
            return decapitalized(name.substring(3));
        }
        Class<?> gives = method.getReturnType();
        if (name.startsWith("is") && name.length() > 2 && (gives == boolean.class || gives == Boolean.class)) {
            return decapitalized(name.substring(2));
        }
        return null;
    }

    private static String decapitalized(String name) {
        if (name.length() > 1 && Character.isUpperCase(name.charAt(1))) {
            return name;
        }
        return Character.toLowerCase(name.charAt(0)) + name.substring(1);
    }

    private static List<Field> fields(Class<?> type) {
        List<Field> found = new ArrayList<Field>();
        if (type.getSuperclass() != null && type.getSuperclass() != Object.class) {
            found.addAll(fields(type.getSuperclass()));
        }
        for (Field field : type.getDeclaredFields()) {
            if (!field.isSynthetic() && (field.getModifiers() & (Modifier.STATIC | Modifier.TRANSIENT)) == 0) {
                found.add(field);
            }
        }
        return found;
    }

    /** Methods of the class and its ancestors, overridden ones once, in an order that does not change from run to run. */
    private static List<Method> methods(Class<?> type) {
        Map<String, Method> found = new HashMap<String, Method>();
        for (Class<?> each = type; each != null && each != Object.class; each = each.getSuperclass()) {
            collect(each.getDeclaredMethods(), found);
        }
        collect(type.getMethods(), found); // of interfaces
        List<String> order = new ArrayList<String>(found.keySet());
        Collections.sort(order);
        List<Method> methods = new ArrayList<Method>();
        for (String key : order) {
            methods.add(found.get(key));
        }
        return methods;
    }

    private static void collect(Method[] methods, Map<String, Method> found) {
        for (Method method : methods) {
            Class<?>[] parameters = method.getParameterTypes();
            boolean fits = !Modifier.isStatic(method.getModifiers()) && !method.isBridge() && !method.isSynthetic();
            if (fits && parameters.length < 2 && method.getDeclaringClass() != Object.class) {
                String key = method.getName() + (parameters.length == 0 ? "" : "(" + parameters[0].getName());
                if (!found.containsKey(key)) {
                    found.put(key, method);
                }
            }
        }
    }

    private static Constructor<?> constructor(Class<?> type) {
        if (type.isInterface() || Modifier.isAbstract(type.getModifiers())) {
            return null;
        }
        Constructor<?> longest = null;
        for (Constructor<?> each : type.getDeclaredConstructors()) {
            int parameters = each.getParameterTypes().length;
            if (parameters == 0 && !isRecord(type)) {
                return open(each);
            }
            if (longest == null || parameters > longest.getParameterTypes().length) {
                longest = each;
            }
        }
        if (isRecord(type)) {
            return canonical(type);
        }
        return longest != null && EventModels.isModel(type) ? open(longest) : null;
    }

    private static Constructor<?> canonical(Class<?> record) {
        List<Field> fields = fields(record);
        Class<?>[] types = new Class<?>[fields.size()];
        for (int i = 0; i < types.length; i++) {
            types[i] = fields.get(i).getType();
        }
        try {
            return open(record.getDeclaredConstructor(types));
        } catch (NoSuchMethodException impossible) {
            return null;
        }
    }

    private List<Property> arguments(Map<String, String> names) {
        List<Property> found = new ArrayList<Property>();
        if (constructor == null) {
            return found;
        }
        Type[] types = constructor.getGenericParameterTypes();
        List<Field> fields = fields(type);
        for (int i = 0; i < types.length && i < fields.size(); i++) {
            String name = fields.get(i).getName();
            Property argument = new Property(names.containsKey(name) ? names.get(name) : name);
            argument.type = types[i];
            found.add(argument);
        }
        return found;
    }

    private static <T extends AccessibleObject> T open(T member) {
        try {
            member.setAccessible(true);
        } catch (RuntimeException closed) {
            return member; // of a module that is not opened; what is public there can be used all the same
        }
        return member;
    }
}
