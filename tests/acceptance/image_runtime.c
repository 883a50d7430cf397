/* A runtime client in an image: answers every event with what it sees. Static, so that an image needs nothing else.

   The file named in the variable READ is read for each. Called extension-something it is an extension instead, which says what it hears. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static char answer[1 << 20], out[1 << 20];
static size_t filled;

static void put(const char *text) {
    size_t length = strlen(text);
    memcpy(out + filled, text, length + 1);
    filled += length;
}

static void quote(const char *text) {
    put("\"");
    for (; *text; text++) {
        char piece[8];
        if (*text == '"' || *text == '\\') sprintf(piece, "\\%c", *text);
        else if ((unsigned char)*text < 32) sprintf(piece, "\\u%04x", *text);
        else sprintf(piece, "%c", *text);
        put(piece);
    }
    put("\"");
}

/* One request; the answer, whole, stands in `answer`, its body is returned. */
static char *talk(const char *method, const char *path, const char *header, const char *body) {
    char api[128], head[1024];
    strcpy(api, getenv("AWS_LAMBDA_RUNTIME_API"));
    char *port = strchr(api, ':');
    *port++ = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, api, &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) exit(70);
    int length = sprintf(head, "%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n",
                         method, path, api, header, strlen(body));
    if (write(fd, head, length) < 0 || write(fd, body, strlen(body)) < 0) exit(71);
    size_t got = 0;
    char *start = 0;
    long expected = -1;
    while (!start || expected < 0 || answer + got < start + expected) {
        ssize_t n = read(fd, answer + got, sizeof answer - 1 - got);
        if (n <= 0) break;
        answer[got += n] = 0;
        if (!start && (start = strstr(answer, "\r\n\r\n"))) {
            start += 4;
            char *field = strcasestr(answer, "\r\ncontent-length:");
            if (field && field < start) expected = atol(field + 17);
        }
    }
    close(fd);
    if (!start) exit(72);
    if (expected >= 0) start[expected] = 0;
    return start;
}

static void value_of(const char *name, char *value) {
    char *found = strcasestr(answer, name);
    if (!found || sscanf(found + strlen(name), " %100[0-9a-zA-Z-]", value) != 1) exit(73);
}

static int extension(const char *name) {
    char header[512], id[128];
    sprintf(header, "Lambda-Extension-Name: %s\r\n", name);
    talk("POST", "/2020-01-01/extension/register", header, "{\"events\":[\"INVOKE\"]}");
    value_of("\r\nlambda-extension-identifier:", id);
    sprintf(header, "Lambda-Extension-Identifier: %s\r\n", id);
    for (;;) {
        char *event = talk("GET", "/2020-01-01/extension/event/next", header, "");
        printf("extension heard %s\n", strstr(event, "INVOKE") ? "INVOKE" : event);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    char *name = strrchr(argv[0], '/');
    if (name && !strncmp(name, "/extension", 10)) return extension(name + 1);
    char place[4096], path[512], id[128], file[4096];
    for (;;) {
        char *event = talk("GET", "/2018-06-01/runtime/invocation/next", "", "");
        value_of("\r\nlambda-runtime-aws-request-id:", id);
        filled = 0;
        put("{\"event\":");
        put(*event ? event : "null");
        put(",\"argv\":[");
        for (int i = 0; i < argc; i++) {
            if (i) put(",");
            quote(argv[i]);
        }
        put("],\"cwd\":");
        quote(getcwd(place, sizeof place));
        put(",\"uid\":");
        put(getuid() ? "1" : "0");
        put(",\"environ\":{");
        for (char **each = environ; *each; each++) {
            char *equals = strchr(*each, '=');
            if (each != environ) put(",");
            *equals = 0;
            quote(*each);
            *equals = '=';
            put(":");
            quote(equals + 1);
        }
        put("},\"file\":");
        int fd = getenv("READ") ? open(getenv("READ"), O_RDONLY) : -1;
        ssize_t n = fd < 0 ? -1 : read(fd, file, sizeof file - 1);
        if (n >= 0) {
            file[n] = 0;
            quote(file);
        } else put("null");
        if (fd >= 0) close(fd);
        fd = open("/written", O_WRONLY | O_CREAT, 0600);
        put(",\"root\":");
        quote(fd >= 0 ? "written" : strerror(errno));
        fd = open("/tmp/written", O_WRONLY | O_CREAT, 0600);
        put(",\"tmp\":");
        quote(fd >= 0 ? "written" : strerror(errno));
        put("}");
        sprintf(path, "/2018-06-01/runtime/invocation/%s/response", id);
        talk("POST", path, "", out);
    }
}
