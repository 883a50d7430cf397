/* An external extension for the benchmark: it registers for INVOKE and asks for the next event as fast as it can. With TELEMETRY=1 in its
   environment it subscribes to all telemetry as well, and a child takes the batches over HTTP. What it does not need it does not check. */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[65536];

static int with_address(int (*what)(int, const struct sockaddr *, socklen_t), int port, const char *host) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(host)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (what(fd, (struct sockaddr *)&address, sizeof address)) exit(10);
    return fd;
}

/* Read one HTTP message, head and body, into `answer`; 0 at the end of the connection. The body of a large one is read and forgotten. */
static int receive(int fd) {
    size_t have = 0;
    char *body = NULL;
    while (!body) {
        ssize_t got = read(fd, answer + have, sizeof answer - 1 - have);
        if (got <= 0) return 0;
        answer[have += got] = 0;
        if ((body = strstr(answer, "\r\n\r\n"))) body += 4;
        else if (have == sizeof answer - 1) exit(11);
    }
    char *length = strcasestr(answer, "content-length:");
    long left = (length && length < body ? atol(length + 15) : 0) - (long)(have - (body - answer));
    static char rest[65536];
    while (left > 0) {
        ssize_t got = read(fd, rest, left < (long)sizeof rest ? left : (long)sizeof rest);
        if (got <= 0) return 0;
        left -= got;
    }
    return 1;
}

static void ask(int fd, const char *method, const char *path, const char *headers, const char *body) {
    char request[4096];
    int size = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: api\r\n%sContent-Length: %zu\r\n\r\n%s", method, path, headers,
                        strlen(body), body);
    if (write(fd, request, size) != size || !receive(fd)) exit(12);
    if (strncmp(answer, "HTTP/1.1 200", 12)) exit(13);
}

static void take_batches(int listening) {
    static const char good[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        while (receive(fd))
            if (write(fd, good, sizeof good - 1) < 0) break;
        close(fd);
    }
}

int main(int count, char **arguments) {
    char host[64], headers[256], mine[512];
    const char *place = getenv("AWS_LAMBDA_RUNTIME_API"), *telemetry = getenv("TELEMETRY"), *slash = strrchr(arguments[0], '/');
    int port = 80;
    if (!place || count < 1) return 14;
    sscanf(place, "%63[^:]:%d", host, &port);
    int subscribes = telemetry && *telemetry == '1';
    if (subscribes) {
        int listening = with_address(bind, 8080, "0.0.0.0");
        listen(listening, 8);
        if (!fork()) take_batches(listening);
    }
    int api = with_address(connect, port, host);
    snprintf(headers, sizeof headers, "Lambda-Extension-Name: %s\r\n", slash ? slash + 1 : arguments[0]);
    ask(api, "POST", "/2020-01-01/extension/register", headers, "{\"events\":[\"INVOKE\"]}");
    char *found = strcasestr(answer, "lambda-extension-identifier:");
    if (!found) return 15;
    snprintf(mine, sizeof mine, "Lambda-Extension-Identifier: %.36s\r\n", found + strlen("lambda-extension-identifier: "));
    if (subscribes)
        ask(api, "PUT", "/2022-07-01/telemetry", mine,
            "{\"schemaVersion\":\"2022-12-13\",\"types\":[\"platform\",\"function\",\"extension\"],"
            "\"buffering\":{\"timeoutMs\":25,\"maxItems\":1000,\"maxBytes\":262144},"
            "\"destination\":{\"protocol\":\"HTTP\",\"URI\":\"http://sandbox.localdomain:8080/\"}}");
    for (;;) ask(api, "GET", "/2020-01-01/extension/event/next", mine, "");
}
