#!/bin/bash
# The sample of the provided family: a runtime of a shell and curl. Answers are files, so that large ones and odd bytes pass through.
set -o pipefail
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
count=0

post() { curl -sS -o /dev/null -H 'Expect:' --data-binary "@$2" "${@:3}" "$api/$1"; }
header() { sed -n "s/^$1: *//Ip" "/tmp/head.$$" | tr -d '\r'; }
words() { printf "$@" > "/tmp/answer.$$"; }
error='{"errorMessage":"%s","errorType":"Shell.Failed"}'

if [ -n "$FAIL_INIT" ]; then
  words "$error" 'closed today'
  post init/error "/tmp/answer.$$" -H 'Lambda-Runtime-Function-Error-Type: Runtime.ShellFailed'
  exit 1
fi

show() {
  local separator='{' name
  : > "/tmp/answer.$$"
  for name in $(tr -d '[]",' <<< "$SHOWN"); do
    if [ -n "${!name+set}" ]; then printf '%s"%s":"%s"' "$separator" "$name" "${!name}"; else printf '%s"%s":null' "$separator" "$name"; fi
    separator=','
  done >> "/tmp/answer.$$"
  printf '}' >> "/tmp/answer.$$"
}

describe() {
  local client now
  client=$(header lambda-runtime-client-context | sed -n 's/.*"custom": *\({[^}]*}\).*/\1/p')
  now=$(date +%s%3N)
  words '{"id":"%s","arn":"%s","left":%d,"name":"%s","version":"%s","memory":%d,"group":"%s","stream":"%s","client":%s,"trace":"%s"}' \
    "$id" "$(header lambda-runtime-invoked-function-arn)" "$(($(header lambda-runtime-deadline-ms) - now))" "$AWS_LAMBDA_FUNCTION_NAME" \
    "$AWS_LAMBDA_FUNCTION_VERSION" "$AWS_LAMBDA_FUNCTION_MEMORY_SIZE" "$AWS_LAMBDA_LOG_GROUP_NAME" "$AWS_LAMBDA_LOG_STREAM_NAME" \
    "${client:-null}" "$(header lambda-runtime-trace-id)"
}

while true; do
  curl -sS -D "/tmp/head.$$" -o "/tmp/event.$$" "$api/invocation/next" || exit 9
  id=$(header lambda-runtime-aws-request-id)
  count=$((count + 1))
  cp "/tmp/event.$$" "/tmp/answer.$$"
  where=response
  case $(head -c 1000 "/tmp/event.$$" | sed -n 's/.*"do": *"\([a-z]*\)".*/\1/p') in
    count) words %d "$count" ;;
    fail) words "$error" 'oh dear'; where=error ;;
    exit) exit "$(sed 's/.*"code": *\([0-9]*\).*/\1/' "/tmp/event.$$")" ;;
    kill) kill -9 $$ ;;
    sleep) sleep 60 ;;
    memory) exec tail /dev/zero ;;
    log) printf 'line %s\n' one two three ;;
    context) describe ;;
    env) show ;;
    layer) words '["%s","%s"]' "$(cat /opt/data.txt)" "$(layered)" ;;
    keep) echo kept > /tmp/kept ;;
    kept) if [ -e /tmp/kept ]; then words true; else words false; fi ;;
  esac
  post "invocation/$id/$where" "/tmp/answer.$$"
done
