import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.commands.ProtocolCommand;
import redis.clients.jedis.exceptions.JedisConnectionException;

public class Talk {
    static ProtocolCommand named(String name) {
        return () -> name.getBytes(StandardCharsets.UTF_8);
    }

    static final ProtocolCommand ACQUIRE = named("NEAP.ACQUIRE"), RELEASE = named("NEAP.RELEASE"),
        SNAPSHOT = named("NEAP.SNAPSHOT");

    @SuppressWarnings("unchecked")
    static List<Object> ask(Jedis who, String... words) {
        String[] all = new String[words.length + 1];
        all[0] = "one";
        System.arraycopy(words, 0, all, 1, words.length);
        return (List<Object>) who.sendCommand(ACQUIRE, all);
    }

    static String text(Object reply) {
        return new String((byte[]) reply, StandardCharsets.UTF_8);
    }

    static Object release(Jedis who, Object lease, String how) {
        return who.sendCommand(RELEASE, text(lease), how);
    }

    static boolean waiting(Jedis who) {
        return ((List<?>) who.sendCommand(SNAPSHOT, "one")).get(3).equals(1L);
    }

    public static void main(String[] words) {
        String host = words[0];
        int port = Integer.parseInt(words[1]);
        Jedis a = new Jedis(host, port, 10000), b = new Jedis(host, port, 10000);
        System.out.println("ping " + a.ping());
        List<Object> first = ask(a);
        System.out.println("first " + text(first.get(0)));
        List<Object> second = ask(b, "BLOCK", "50");
        System.out.println("second " + text(second.get(0)) + " " + text(second.get(4)));

        CompletableFuture<List<Object>> waiter =
            CompletableFuture.supplyAsync(() -> ask(b, "BLOCK", "5000"));
        while (!waiting(a)) Thread.onSpinWait();
        System.out.println("release " + release(a, first.get(1), "OK"));
        List<Object> third = waiter.join();
        System.out.println("third " + text(third.get(0)));

        try (Jedis c = new Jedis(host, port, 200)) {
            ask(c, "BLOCK", "2000", "ID", "job-1");
        } catch (JedisConnectionException e) {
            System.out.println("time-out");
        }
        release(a, third.get(1), "OK");
        List<Object> fourth = ask(b, "BLOCK", "2000", "ID", "job-1");
        List<Object> fifth = ask(b, "ID", "job-1");
        System.out.println("fourth " + text(fourth.get(0)) + " "
            + (text(fourth.get(1)).equals(text(fifth.get(1))) ? "same" : "another"));
        System.out.println("release " + release(a, fourth.get(1), "FAIL"));
        System.out.println("release " + release(a, fourth.get(1), "FAIL"));
        System.exit(0);
    }
}
