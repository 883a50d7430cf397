/* The sample of compiled programs, in a zip file and in an image: a runtime of sockets and nothing else. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static char *head, *body; /* of the last answer */
static size_t body_size;

static void ask(const char *method, const char *path, const char *data, size_t size, const char *headers) {
    char *api = strdup(getenv("AWS_LAMBDA_RUNTIME_API")), *colon = strchr(api, ':');
    *colon = 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    inet_pton(AF_INET, api, &at.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof at)) exit(90);
    dprintf(fd, "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n",
            method, path, api, size, headers);
    for (ssize_t put; size; data += put, size -= put)
        if ((put = write(fd, data, size)) <= 0) exit(91);
    size_t room = 1 << 16, have = 0;
    ssize_t got;
    free(head);
    head = malloc(room + 1);
    while ((got = read(fd, head + have, room - have)) > 0)
        if ((have += got) == room) head = realloc(head, (room *= 2) + 1);
    head[have] = 0;
    close(fd);
    free(api);
    char *end = strstr(head, "\r\n\r\n");
    if (!end) exit(92);
    *end = 0;
    body = end + 4;
    body_size = have - (body - head);
}

static char *header(const char *name) {
    for (char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (!strncasecmp(line, name, strlen(name)) && line[strlen(name)] == ':') {
            char *value = line + strlen(name) + 1;
            value += strspn(value, " ");
            return strndup(value, strcspn(value, "\r\n"));
        }
    }
    return "";
}

static const char *text(const char *name) { return getenv(name) ? getenv(name) : ""; }

static size_t describe(char *answer, size_t room) {
    struct timeval now;
    gettimeofday(&now, 0);
    long long left = atoll(header("lambda-runtime-deadline-ms")) - (now.tv_sec * 1000LL + now.tv_usec / 1000);
    char *client = strstr(header("lambda-runtime-client-context"), "\"custom\"");
    if (client) client = strchr(client, '{');
    if (client) client[strcspn(client, "}") + 1] = 0;
    return snprintf(answer, room,
        "{\"id\":\"%s\",\"arn\":\"%s\",\"left\":%lld,\"name\":\"%s\",\"version\":\"%s\",\"memory\":%s,\"group\":\"%s\",\"stream\":\"%s\","
        "\"client\":%s,\"trace\":\"%s\"}",
        header("lambda-runtime-aws-request-id"), header("lambda-runtime-invoked-function-arn"), left, text("AWS_LAMBDA_FUNCTION_NAME"),
        text("AWS_LAMBDA_FUNCTION_VERSION"), text("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), text("AWS_LAMBDA_LOG_GROUP_NAME"),
        text("AWS_LAMBDA_LOG_STREAM_NAME"), client ? client : "null", header("lambda-runtime-trace-id"));
}

static size_t show(char *answer, size_t room) {
    char *names = strdup(text("SHOWN")), separator = '{';
    size_t used = 0;
    for (char *name = strtok(names, "[]\", "); name; name = strtok(0, "[]\", "), separator = ',') {
        used += snprintf(answer + used, room - used, getenv(name) ? "%c\"%s\":\"%s\"" : "%c\"%s\":null", separator, name, text(name));
    }
    return used + snprintf(answer + used, room - used, "}");
}

static size_t layer(char *answer, size_t room) {
    char data[100] = "", word[100] = "";
    FILE *file = fopen("/opt/data.txt", "r");
    if (!file || !fgets(data, sizeof data, file)) exit(93);
    file = popen("layered", "r");
    if (!file || !fgets(word, sizeof word, file)) exit(94);
    return snprintf(answer, room, "[\"%s\",\"%s\"]", data, word);
}

int main(void) {
    static char answer[1 << 16], path[200];
    const char *error = "{\"errorMessage\":\"%s\",\"errorType\":\"Compiled.Failed\"}";
    if (getenv("FAIL_INIT")) {
        size_t size = snprintf(answer, sizeof answer, error, "closed today");
        ask("POST", "init/error", answer, size, "Lambda-Runtime-Function-Error-Type: Runtime.CompiledFailed\r\n");
        return 1;
    }
    for (int count = 1;; count++) {
        ask("GET", "invocation/next", "", 0, "");
        char word[20] = "", *event = body, *found = strstr(event, "\"do\"");
        if (found && found < event + 100) sscanf(found, "\"do\" : \"%19[a-z]", word);
        snprintf(path, sizeof path, "invocation/%.36s/%s", header("lambda-runtime-aws-request-id"), strcmp(word, "fail") ? "response" : "error");
        size_t size = 0;
        if (!strcmp(word, "count")) size = snprintf(answer, sizeof answer, "%d", count);
        else if (!strcmp(word, "fail")) size = snprintf(answer, sizeof answer, error, "oh dear");
        else if (!strcmp(word, "exit")) _exit(atoi(strchr(strstr(event, "\"code\""), ':') + 1));
        else if (!strcmp(word, "kill")) kill(getpid(), SIGKILL);
        else if (!strcmp(word, "sleep")) sleep(60);
        else if (!strcmp(word, "memory")) for (;;) memset(malloc(10000000), 1, 10000000);
        else if (!strcmp(word, "log")) { puts("line one\nline two\nline three"); fflush(stdout); }
        else if (!strcmp(word, "context")) size = describe(answer, sizeof answer);
        else if (!strcmp(word, "env")) size = show(answer, sizeof answer);
        else if (!strcmp(word, "layer")) size = layer(answer, sizeof answer);
        else if (!strcmp(word, "keep")) fclose(fopen("/tmp/kept", "w"));
        else if (!strcmp(word, "kept")) size = snprintf(answer, sizeof answer, access("/tmp/kept", F_OK) ? "false" : "true");
        if (size) { ask("POST", path, answer, size, ""); continue; }
        char *whole = head;  /* ask frees the answer before */
        head = 0;
        ask("POST", path, event, body_size, "");
        free(whole);
    }
}
