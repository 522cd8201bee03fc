#!/usr/bin/env bash
# The whole loop with curl and SQL: each step is carried out, and what it shows is checked.
#
# SQLite unless MYSQL_DSN is set, and then the database must be empty: its agent_tasks table is
# dropped in the end. Ports 8080 and 9090 must be free. Needs curl and jq, and for MYSQL_DSN the
# mariadb (or mysql) client. State and logs go to a folder that is removed, unless a step fails.
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PATH:$PWD/../../.venv/bin"

export JWT_SECRET="your-secret-key"
export AGENT_TOKEN="test-agent-token"
export MIGRATE=1
export ADMIN_PASSWORD=admin123

WORK=$(mktemp -d "${TMPDIR:-/tmp}/edgeplane-walkthrough.XXXXXX")
export EDGEPLANE_STATE_DIR="$WORK/control" EDGEPLANE_AGENT_STATE_DIR="$WORK/agent-state"
LOG="$WORK/cmdb.log"
AGENT_LOG="$WORK/agent.log"
CONTROL_PID= AGENT_PID=

# ---- what the steps below lean on ---------------------------------------------------------------

step() { printf '\n== %s\n' "$1"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }

# shows NAME PATTERN: the output read from here has a line that matches; it is printed, too.
shows() {
  local text
  text=$(cat)
  printf '%s\n' "$text"
  grep -Eq -- "$2" <<<"$text" || fail "$1: nothing matches $2"
}

# answers FILTER: the JSON read from here makes the jq filter true; it is printed, too.
answers() {
  local text
  text=$(cat)
  jq -c '.' <<<"$text"
  jq -e "$1" >/dev/null <<<"$text" || fail "not so: $1"
}

# soon SECONDS COMMAND...: the command succeeds within so many seconds.
soon() {
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    ((tries-- > 0)) || fail "not in time: $*"
    sleep 0.1
  done
}

logged() { grep -Fq -- "$2" "$1"; }

api() {
  curl -s -X "$1" "http://localhost:8080/api/v1$2" -H "Authorization: Bearer $TOKEN" \
    -H "Content-Type: application/json" ${3:+-d "$3"}
}
task_is() { api GET "/agent-tasks/$1" | jq -e ".data | $2"; }

start_control() {
  ./bin/cmdb >>"$LOG" 2>&1 &
  CONTROL_PID=$!
}
start_agent() {
  : >"$AGENT_LOG"
  ./bin/agent >>"$AGENT_LOG" 2>&1 &
  AGENT_PID=$!
  soon 20 logged "$AGENT_LOG" "Agent server running on :9090"
}
stop_agent() {
  kill "$AGENT_PID"
  wait "$AGENT_PID" || true
}

# The walkthrough ends its agent by name. Here only this script's own agent may be meant: the name
# has to find it, and nothing else is touched.
pkill() {
  pgrep "$@" | grep -qx "$AGENT_PID" || fail "pkill $*: does not find the agent"
  stop_agent
}

# Run one statement; rows come out with tabs between columns.
if [ -n "${MYSQL_DSN:-}" ]; then
  [[ $MYSQL_DSN =~ ^([^:]*):(.*)@tcp\(([^:]*):([0-9]+)\)/([^?]+) ]] || fail "MYSQL_DSN: not user:pass@tcp(host:port)/db"
  DB=(-h "${BASH_REMATCH[3]}" -P "${BASH_REMATCH[4]}" -u "${BASH_REMATCH[1]}" "${BASH_REMATCH[5]}")
  DB_PASSWORD="${BASH_REMATCH[2]}"
  CLIENT=$(command -v mariadb || command -v mysql) || fail "the mariadb client is missing"
  sql() { MYSQL_PWD="$DB_PASSWORD" "$CLIENT" --protocol=tcp -N -B "${DB[@]}"; }
  [ "$(sql <<<'SHOW TABLES')" = "" ] || fail "MYSQL_DSN: the database is not empty; give an empty one"
elif command -v sqlite3 >/dev/null; then
  sql() { sqlite3 -batch -separator $'\t' "$EDGEPLANE_STATE_DIR/edgeplane.db"; }
else
  sql() {
    python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    for row in db.execute(sys.stdin.read()):
        print(*("" if x is None else x for x in row), sep="\t")' "$EDGEPLANE_STATE_DIR/edgeplane.db"
  }
fi

finish() {
  local status=$?
  trap - EXIT
  for pid in $AGENT_PID $CONTROL_PID; do
    kill "$pid" 2>/dev/null && wait "$pid" || true
  done
  if [ "$status" -eq 0 ]; then
    rm -rf "$WORK"
  else
    tail -n 20 "$LOG" "$AGENT_LOG" >&2 || true
    printf 'logs and state are kept in %s\n' "$WORK" >&2
  fi
  exit "$status"
}
trap finish EXIT

# ---- the eight steps ----------------------------------------------------------------------------

step "Step 1: start the control plane"
start_control
soon 30 logged "$LOG" "Server running on http://localhost:8080/"
shows "start" '^Starting database migration\.\.\.$' <"$LOG"
shows "migration" '^✓ Database migration completed successfully \([0-9]+ tables\)$' <"$LOG" >/dev/null
for name in JWT_SECRET AGENT_TOKEN ADMIN_PASSWORD; do
  shows "a published secret starts with a warning" "WARNING: $name is a published example" <"$LOG" >/dev/null
done

step "Step 2: start the agent"
export AGENT_TOKEN="test-agent-token"
export AGENT_HTTP_ADDR=":9090"
start_agent
shows "start" '^Starting agent server\.\.\.$' <"$AGENT_LOG"
shows "address" '^HTTP address: :9090$' <"$AGENT_LOG" >/dev/null
shows "warning" 'WARNING: AGENT_TOKEN is a published example' <"$AGENT_LOG" >/dev/null
! grep -F "test-agent-token" "$AGENT_LOG" "$LOG" || fail "a token was printed"

step "Step 3: log in"
TOKEN=$(curl -s -X POST "http://localhost:8080/api/v1/auth/login" \
  -H "Content-Type: application/json" \
  -d '{"username":"admin","password":"admin123"}' \
  | jq -r '.data.token')

[ "${#TOKEN}" -gt 40 ] || fail "no token: $TOKEN"
echo "Token: ${TOKEN:0:10}..."

step "Step 4: create a node"
NODE_ID=$(curl -s -X POST "http://localhost:8080/api/v1/nodes/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "name": "test-node-1",
    "mainIP": "127.0.0.1",
    "agentPort": 9090,
    "enabled": true,
    "status": "online"
  }' | jq -r '.data.id')

echo "Node ID: $NODE_ID"
[ "$NODE_ID" = 1 ] || fail "the first node should be 1"
api GET "/nodes/$NODE_ID" | answers '.data.status == "online" and .data.enabled'

step "Step 5: create a task"
CREATED=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": '$NODE_ID',
    "type": "apply_config",
    "payload": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]}
  }' | jq '.')
answers '.code == 0 and .message == "success" and (.data | .id == 1 and .nodeId == 1
  and .type == "apply_config" and .status == "pending" and .attempts == 0)' <<<"$CREATED"
ID=$(jq -r '.data.requestId' <<<"$CREATED")

step "Step 6: the agent's log"
soon 10 logged "$AGENT_LOG" \
  "[SUCCESS] Task $ID (apply_config) completed: Config applied and saved to /tmp/cmdb_apply_config_$ID.json"
tail -n 1 "$AGENT_LOG"

step "Step 7: the file"
ls -l /tmp/cmdb_apply_config_*.json
cat /tmp/cmdb_apply_config_*.json
EXPECTED='{
  "vhost": "example.com",
  "upstream": [
    "192.168.1.1:80"
  ]
}'
[ "$(cat "/tmp/cmdb_apply_config_$ID.json")" = "$EXPECTED" ] || fail "the file's content"

step "Step 8: the task's status"
soon 10 task_is 1 '.status == "success"'
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?nodeId=$NODE_ID" \
  -H "Authorization: Bearer $TOKEN" | jq '.data.list[0]' \
  | answers '.status == "success" and .attempts == 1 and .payload.vhost == "example.com"'

# ---- the curl collection ------------------------------------------------------------------------

step "1. Create the node: the name is taken by now"
curl -s -X POST "http://localhost:8080/api/v1/nodes/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "name": "test-node-1",
    "mainIP": "127.0.0.1",
    "agentPort": 9090,
    "enabled": true,
    "status": "online"
  }' | answers '.code == 3002 and .data == null'

step "2. Create an apply_config task"
curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": 1,
    "type": "apply_config",
    "payload": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]}
  }' | answers '.data.id == 2 and .data.status == "pending"'

step "3. Create a reload task"
RELOAD_ID=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": 1,
    "type": "reload",
    "payload": {}
  }' | jq -r '.data.requestId')
soon 10 test -e "/tmp/cmdb_reload_$RELOAD_ID.txt"

step "4. Create a purge_cache task"
PURGE_ID=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": 1,
    "type": "purge_cache",
    "payload": {"urls": ["/api/*", "/static/*"]}
  }' | jq -r '.data.requestId')
soon 10 test -e "/tmp/cmdb_purge_cache_$PURGE_ID.json"
for id in 2 3 4; do soon 10 task_is "$id" '.status == "success"'; done

step "5. List tasks"
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?page=1&pageSize=10" \
  -H "Authorization: Bearer $TOKEN" \
  | answers '.data | .total == 4 and (.list | length) == 4 and .page == 1 and .pageSize == 10'

step "6. Show a task"
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks/1" \
  -H "Authorization: Bearer $TOKEN" | answers '.data.id == 1 and .data.finishedAt != null'

step "7. A failure: the agent has another token, then it is stopped"
stop_agent
AGENT_TOKEN="not-the-same-token" start_agent
REFUSED=$(api POST /agent-tasks/create '{"nodeId": 1, "type": "reload"}' | jq -r '.data.id')
soon 10 task_is "$REFUSED" '.status == "failed" and .nextRetryAt == null
  and (.lastError | contains("agent returned status 401"))'
stop_agent
STOPPED=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": 1,
    "type": "reload",
    "payload": {}
  }' | jq -r '.data.id')
soon 10 task_is "$STOPPED" '.status == "failed"'

# What waits for its node is `running` for the moment of each probe: a look may have to be taken again.
list_failed() {
  curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?status=failed" \
    -H "Authorization: Bearer $TOKEN" | tee "$WORK/failed.json" | jq -e "$1"
}
soon 10 list_failed "[.data.list[].id] == [$STOPPED, $REFUSED]"
jq -c '.' "$WORK/failed.json"

step "8. Retry: refused for a task that succeeded, done for one that failed"
curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/retry" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "id": 1
  }' | answers '.code == 3003 and .data == null'
start_agent
curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/retry" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "id": '$REFUSED'
  }' | answers ".code == 0 and .data.id == $REFUSED and .data.attempts >= 1"
soon 20 task_is "$REFUSED" '.status == "success" and .attempts >= 2 and .lastError == null'
soon 20 task_is "$STOPPED" '.status == "success"' # by itself: its node is back

step "9. The agent asked again under a known requestId"
for _ in 1 2; do
  curl -s -X POST "http://localhost:9090/agent/v1/tasks/execute" \
    -H "Authorization: Bearer test-agent-token" \
    -H "Content-Type: application/json" \
    -d '{
      "requestId": "existing-uuid-here",
      "type": "apply_config",
      "payload": {"vhost": "example.com"}
    }' | answers '.code == 0 and .data.status == "success" and .data.requestId == "existing-uuid-here"'
done
logged "$AGENT_LOG" "[IDEMPOTENT] Request existing-uuid-here already processed, returning cached result" \
  || fail "the second request was not answered from the journal"
# A task of the control plane is known as well, although the agent was restarted since.
curl -s -X POST "http://localhost:9090/agent/v1/tasks/execute" \
  -H "Authorization: Bearer test-agent-token" \
  -H "Content-Type: application/json" \
  -d '{"requestId": "'"$ID"'", "type": "apply_config", "payload": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]}}' \
  | answers '.data.status == "success"'
logged "$AGENT_LOG" "[IDEMPOTENT] Request $ID already processed, returning cached result" \
  || fail "the journal did not outlive the restart"
# The same id with something else is a mistake, and told as one.
curl -s -X POST "http://localhost:9090/agent/v1/tasks/execute" \
  -H "Authorization: Bearer test-agent-token" \
  -H "Content-Type: application/json" \
  -d '{"requestId": "'"$ID"'", "type": "apply_config", "payload": {"vhost": "example.com"}}' \
  | answers '.code == 3002'

step "10. The agent cannot be reached"
pkill -f "./bin/agent"

TASK_ID=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{
    "nodeId": 1,
    "type": "reload",
    "payload": {}
  }' | jq -r '.data.id')
soon 10 task_is "$TASK_ID" '.status == "failed" and .nextRetryAt != null and .attempts >= 1
  and (.lastError | contains("connection refused"))'
select_failed() {
  sql <<'SQL' | tee "$WORK/failed.txt" | grep -Eq -- "$1"
SELECT id, node_id, type, status, last_error, attempts
FROM agent_tasks
WHERE status = 'failed'
ORDER BY id DESC
LIMIT 5;
SQL
}
soon 10 select_failed "$(printf '^%s\t1\treload\tfailed\t.*connection refused' "$TASK_ID")"
cat "$WORK/failed.txt"

step "11. Filter by status"
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?status=success" \
  -H "Authorization: Bearer $TOKEN" | answers '.data | .total == 6 and all(.list[]; .status == "success")'

soon 10 list_failed "[.data.list[].id] == [$TASK_ID]"
jq -c '.' "$WORK/failed.json"

step "12. Filter by type"
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?type=apply_config" \
  -H "Authorization: Bearer $TOKEN" | answers '[.data.list[].id] == [2, 1]'

curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?type=reload" \
  -H "Authorization: Bearer $TOKEN" | answers '.data.total == 4 and all(.data.list[]; .type == "reload")'

curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?type=purge_cache" \
  -H "Authorization: Bearer $TOKEN" | answers '[.data.list[].id] == [4]'

step "13. Filter by node"
curl -s -X GET "http://localhost:8080/api/v1/agent-tasks?nodeId=1" \
  -H "Authorization: Bearer $TOKEN" | answers '.data.total == 7'

step "14. How attempts count"
start_agent
soon 20 task_is "$TASK_ID" '.status == "success" and .attempts >= 2' # by itself

TASK_ID=$(curl -s -X POST "http://localhost:8080/api/v1/agent-tasks/create" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"nodeId": 1, "type": "reload", "payload": {}}' \
  | jq -r '.data.id')
soon 10 task_is "$TASK_ID" '.status == "success"'

curl -s -X GET "http://localhost:8080/api/v1/agent-tasks/$TASK_ID" \
  -H "Authorization: Bearer $TOKEN" | jq '.data.attempts' | shows "attempts" '^1$'

# ---- the idempotency of the agent, both ways ----------------------------------------------------

step "Idempotency 1: the second call is answered, not carried out"
rm -f /tmp/cmdb_apply_config_test-idempotent-uuid.json
curl -s -X POST "http://localhost:9090/agent/v1/tasks/execute" \
  -H "Authorization: Bearer test-agent-token" \
  -H "Content-Type: application/json" \
  -d '{
    "requestId": "test-idempotent-uuid",
    "type": "apply_config",
    "payload": {"vhost": "test.com"}
  }' | answers '.data.status == "success"'
FIRST=$(ls -l --time-style=full-iso -i /tmp/cmdb_apply_config_test-idempotent-uuid.json)
curl -s -X POST "http://localhost:9090/agent/v1/tasks/execute" \
  -H "Authorization: Bearer test-agent-token" \
  -H "Content-Type: application/json" \
  -d '{
    "requestId": "test-idempotent-uuid",
    "type": "apply_config",
    "payload": {"vhost": "test.com"}
  }' | answers '.data.status == "success"'
logged "$AGENT_LOG" "[SUCCESS] Task test-idempotent-uuid (apply_config) completed: " || fail "no success line"
logged "$AGENT_LOG" "[IDEMPOTENT] Request test-idempotent-uuid already processed, returning cached result" \
  || fail "no idempotent line"

step "Idempotency 2: the file is untouched"
SECOND=$(ls -l --time-style=full-iso -i /tmp/cmdb_apply_config_test-idempotent-uuid.json)
printf '%s\n' "$FIRST" "$SECOND"
[ "$FIRST" = "$SECOND" ] || fail "the file was written again"

# ---- the SQL checks -----------------------------------------------------------------------------

step "SQL 1: from pending to success"
sql <<'SQL' | shows "statuses" "$(printf '^1\t1\tapply_config\tsuccess\t1\t')"
SELECT id, node_id, type, status, attempts, created_at, updated_at
FROM agent_tasks
WHERE type = 'apply_config'
ORDER BY id DESC
LIMIT 5;
SQL
[ "$(sql <<<'SELECT COUNT(*) FROM agent_tasks WHERE updated_at <= created_at')" = 0 ] || fail "updated_at"

step "SQL 2: nothing is failed any more (the failure was looked at above)"
[ -z "$(sql <<'SQL'
SELECT id, node_id, type, status, last_error, attempts
FROM agent_tasks
WHERE status = 'failed'
ORDER BY id DESC
LIMIT 5;
SQL
)" ] || fail "a task is still failed"

step "SQL 3: attempts and next_retry_at"
sql <<'SQL' | shows "the retried one" "$(printf '^%s\treload\tsuccess\t[2-9]' "$REFUSED")"
SELECT id, type, status, attempts, next_retry_at, last_error
FROM agent_tasks
WHERE attempts > 1
ORDER BY id DESC
LIMIT 5;
SQL

step "SQL 4: no request_id is there twice"
[ -z "$(sql <<'SQL'
SELECT request_id, COUNT(*) as count
FROM agent_tasks
GROUP BY request_id
HAVING count > 1;
SQL
)" ] || fail "a request_id is there twice"

step "SQL 5: by type"
sql <<'SQL' | sort | tr '\t\n' ' ;' | shows "types" '^apply_config 2 2 0;purge_cache 1 1 0;reload 5 5 0;$'
SELECT type, COUNT(*) as count, 
       SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) as success_count,
       SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) as failed_count
FROM agent_tasks
GROUP BY type;
SQL

step "SQL 6: by node"
sql <<'SQL' | shows "nodes" "$(printf '^1\t8\t8\t0$')"
SELECT node_id, COUNT(*) as total_tasks,
       SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) as success_count,
       SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) as failed_count
FROM agent_tasks
GROUP BY node_id
ORDER BY total_tasks DESC;
SQL

# ---- the rollback, on a test database -----------------------------------------------------------

step "Rollback: drop the table"
stop_agent
kill "$CONTROL_PID"
wait "$CONTROL_PID" || fail "the control plane did not stop cleanly"
AGENT_PID= CONTROL_PID=
sql <<'SQL'
DROP TABLE IF EXISTS agent_tasks;
SQL
! sql <<<'SELECT COUNT(*) FROM agent_tasks' 2>/dev/null || fail "agent_tasks is still there"

printf '\nAll steps went as they should.\n'
