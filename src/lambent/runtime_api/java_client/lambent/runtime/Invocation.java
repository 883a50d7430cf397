package lambent.runtime;

/** One event and what the platform said of it: the fields of an INVOKE frame. */
final class Invocation {
    final String token;
    final String requestId;
    final long deadline; // ms since the epoch
    final String arn;
    final String trace;
    final String tenant;
    final String cognito;
    final String client;
    final byte[] event;

    Invocation(String head, byte[] event) {
        String[] fields = new String[8];
        int from = 0;
        for (int i = 0; i < 7; i++) {
            int to = head.indexOf('\n', from);
            fields[i] = head.substring(from, to);
            from = to + 1;
        }
        fields[7] = head.substring(from);
        this.token = fields[0];
        this.requestId = fields[1];
        this.deadline = Long.parseLong(fields[2]);
        this.arn = fields[3];
        this.trace = fields[4];
        this.tenant = fields[5];
        this.cognito = fields[6];
        this.client = fields[7];
        this.event = event;
    }
}
