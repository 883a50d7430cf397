package lambent.runtime;

import java.io.File;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Loads the function's classes: its own folder, the jars in its {@code lib}, and those of the layers, in AWS's order.
 *
 * <p>The runtime's loader comes first, so that a function which ships the {@code aws-lambda-java-core} interfaces implements ours.
 */
final class FunctionLoader extends URLClassLoader {
    FunctionLoader(String taskRoot, String layerRoot) throws MalformedURLException {
        super(path(taskRoot, layerRoot), ClassLoader.getSystemClassLoader());
    }

    private static URL[] path(String taskRoot, String layerRoot) throws MalformedURLException {
        List<URL> found = new ArrayList<URL>();
        found.add(new URL("file", null, -1, taskRoot + "/"));
        jars(taskRoot + "/lib", found);
        jars(layerRoot + "/lib", found);
        return found.toArray(new URL[0]);
    }

    private static void jars(String folder, List<URL> found) throws MalformedURLException {
        String[] names = new File(folder).list();
        if (names == null) {
            return;
        }
        Arrays.sort(names);
        for (String name : names) {
            if (name.endsWith(".jar")) {
                found.add(new URL("file", null, -1, folder + "/" + name));
            }
        }
    }
}
