# The virtual machine, its compiler, and native methods of the class library.
# packages: openjdk-17-jdk-headless
java -version 2>&1; echo "$?"
cat >Hello.java <<'END'
import java.net.*; import java.nio.file.*; import java.util.*; import java.util.zip.*;
import javax.imageio.ImageIO; import java.awt.image.BufferedImage;
public class Hello {
    public static void main(String[] arguments) throws Exception {
        CRC32 crc = new CRC32();
        crc.update("hello".getBytes());
        System.out.println(crc.getValue());
        System.out.println(Files.exists(Path.of("Hello.java")));
        System.out.println(InetAddress.getByName("127.0.0.1").isLoopbackAddress());
        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
            Thread thread = new Thread(() -> {
                try (Socket socket = new Socket("127.0.0.1", server.getLocalPort())) {
                    socket.getOutputStream().write(65);
                } catch (Exception error) { error.printStackTrace(); }
            });
            thread.start();
            System.out.println(server.accept().getInputStream().read());
            thread.join();
        }
        BufferedImage image = new BufferedImage(8, 8, BufferedImage.TYPE_INT_RGB);
        image.setRGB(1, 1, 0xff0000);
        System.out.println(ImageIO.write(image, "png", new java.io.File("image.png")));
        try { System.loadLibrary("nonesuch"); }
        catch (UnsatisfiedLinkError error) { System.out.println(error.getMessage().startsWith("no nonesuch")); }
        try { System.load(Path.of("/usr/lib/x86_64-linux-gnu/libnonesuch.so").toString()); }
        catch (UnsatisfiedLinkError error) { System.out.println(error.getMessage()); }
        int[] array = null;
        try { System.out.println(array.length); }
        catch (NullPointerException error) { System.out.println("caught"); }
        try { deep(0); }
        catch (StackOverflowError error) { System.out.println("caught"); }
        Object[] parts = new Object[200];
        for (int i = 0; i < 20000; i++) parts[i % 200] = new int[1000];
        System.gc();
        System.exit(3);
    }
    static int deep(int n) { return deep(n + 1) + 1; }
}
END
javac Hello.java; echo "$?"
java -Djava.awt.headless=true Hello 2>&1; echo "$?"
jar cf hello.jar Hello.class && jar tf hello.jar; echo "$?"
