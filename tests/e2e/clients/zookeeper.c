/* ZooKeeper's C client: nodes, watches, transactions, access lists, time-outs, members. SERVERS is its argument. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static void fail(int line, const char *what, int found, int expected) {
    fprintf(stderr, "line %d: %s gave %d (%s), not %d\n", line, what, found, zerror(found), expected);
    exit(1);
}

#define WANT(call, expected)                                      \
    do {                                                          \
        int found = (call);                                       \
        if (found != (expected)) fail(__LINE__, #call, found, (expected)); \
    } while (0)
#define OK(call) WANT(call, ZOK)

/* What the watcher of a session or a node was told last; only its thread writes. */
static volatile int connected, last_type;
static volatile int events;

static void on_session(zhandle_t *zh, int type, int state, const char *path, void *context) {
    if (type == ZOO_SESSION_EVENT) connected = state == ZOO_CONNECTED_STATE;
}

static void on_node(zhandle_t *zh, int type, int state, const char *path, void *context) {
    if (type == ZOO_SESSION_EVENT) return;
    last_type = type;
    events++;
}

/* Waits for so many events, with a hang guard of 30 s. */
static void await(volatile int *what, int expected) {
    for (int i = 0; i < 3000 && *what < expected; i++) usleep(10000);
    WANT(*what, expected);
}

static void on_authenticated(int rc, const void *data) { *(volatile int *)data = rc == ZOK; }

static void on_synced(int rc, const char *value, const void *data) {
    *(volatile int *)data = rc == ZOK;
}

int main(int argc, char **argv) {
    char path[128], buffer[256];
    int length;
    struct Stat stat;
    struct String_vector names;
    struct ACL_vector acl;
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    zhandle_t *zh = zookeeper_init(argv[1], on_session, 10000, NULL, NULL, 0);
    if (!zh) return 1;
    await(&connected, 1);
    WANT(zoo_recv_timeout(zh), 10000);

    OK(zoo_create(zh, "/c", "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path));
    WANT(zoo_create(zh, "/c", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNODEEXISTS);
    OK(zoo_create2(zh, "/c/s-", "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL_SEQUENTIAL, path, sizeof path, &stat));
    WANT(strcmp(path, "/c/s-0000000000"), 0);
    WANT(stat.ephemeralOwner == zoo_client_id(zh)->client_id, 1);
    OK(zoo_create2_ttl(zh, "/c/ttl", "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 3600000, path, sizeof path, &stat));
    OK(zoo_create(zh, "/c/box", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0));
    WANT(zoo_create(zh, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, 9, NULL, 0), ZBADARGUMENTS);

    length = sizeof buffer;
    OK(zoo_wget(zh, "/c", on_node, NULL, buffer, &length, &stat));
    WANT(length, 3);
    OK(zoo_set2(zh, "/c", "two", 3, stat.version, &stat));
    await(&events, 1);
    WANT(last_type == ZOO_CHANGED_EVENT, 1);
    WANT(zoo_set(zh, "/c", "never", 5, 99), ZBADVERSION);
    WANT(zoo_wexists(zh, "/c/new", on_node, NULL, &stat), ZNONODE);
    OK(zoo_create(zh, "/c/new", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    await(&events, 2);
    WANT(last_type == ZOO_CREATED_EVENT, 1);
    length = sizeof buffer;
    OK(zoo_get(zh, "/c/new", 0, buffer, &length, &stat));
    WANT(length, -1);
    OK(zoo_wget_children2(zh, "/c", on_node, NULL, &names, &stat));
    WANT(names.count, 4);
    deallocate_String_vector(&names);
    OK(zoo_delete(zh, "/c/new", 0));
    await(&events, 3);
    WANT(last_type == ZOO_CHILD_EVENT, 1);
    OK(zoo_wexists(zh, "/c", on_node, NULL, &stat));
    OK(zoo_remove_watches(zh, "/c", ZWATCHTYPE_DATA, on_node, NULL, 0));
    WANT(zoo_remove_watches(zh, "/c", ZWATCHTYPE_CHILD, on_node, NULL, 0), ZNOWATCHER);
    OK(zoo_wexists(zh, "/c", on_node, NULL, &stat));
    OK(zoo_remove_all_watches(zh, "/c", ZWATCHTYPE_ANY, 0));
    WANT(zoo_remove_all_watches(zh, "/c", ZWATCHTYPE_ANY, 0), ZNOWATCHER);
    WANT(zoo_delete(zh, "/c", -1), ZNOTEMPTY);

    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    zoo_check_op_init(&ops[0], "/c", 1);
    zoo_create_op_init(&ops[1], "/c/t", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    zoo_set_op_init(&ops[2], "/c/t", "2", 1, 0, &stat);
    zoo_delete_op_init(&ops[3], "/c/t", 1);
    OK(zoo_multi(zh, 4, ops, results));
    WANT(strcmp(path, "/c/t"), 0);
    zoo_check_op_init(&ops[2], "/c", 99);
    WANT(zoo_multi(zh, 3, ops, results), ZBADVERSION);
    WANT(results[0].err, ZOK);
    WANT(results[2].err, ZBADVERSION);
    WANT(zoo_exists(zh, "/c/t", 0, &stat), ZNONODE);

    volatile int authenticated = 0, synced = 0;
    OK(zoo_add_auth(zh, "digest", "bob:secret", 10, on_authenticated, (void *)&authenticated));
    await(&authenticated, 1);
    OK(zoo_create(zh, "/c/own", "mine", 4, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    OK(zoo_get_acl(zh, "/c/own", &acl, &stat));
    WANT(acl.count, 1);
    WANT(strcmp(acl.data[0].id.scheme, "digest"), 0);
    deallocate_ACL_vector(&acl);
    OK(zoo_set_acl(zh, "/c/own", 0, &ZOO_READ_ACL_UNSAFE));
    WANT(zoo_set(zh, "/c/own", "x", 1, -1), ZNOAUTH);
    OK(zoo_async(zh, "/c", on_synced, (void *)&synced));
    await(&synced, 1);

    length = sizeof buffer - 1;
    OK(zoo_getconfig(zh, 0, buffer, &length, &stat));
    buffer[length] = 0;
    WANT(strstr(buffer, "version=") != NULL, 1);
    char added[512];
    length = sizeof added - 1;
    const char *observer = "server.9=127.0.0.1:9:10:observer;127.0.0.1:11";
    WANT(zoo_reconfig(zh, observer, NULL, NULL, -1, added, &length, &stat), ZNOAUTH);
    authenticated = 0;
    OK(zoo_add_auth(zh, "digest", "super:test", 10, on_authenticated, (void *)&authenticated));
    await(&authenticated, 1);
    length = sizeof added - 1;
    OK(zoo_reconfig(zh, observer, NULL, NULL, -1, added, &length, &stat));
    added[length] = 0;
    WANT(strstr(added, observer) != NULL, 1);
    length = sizeof added - 1;
    OK(zoo_reconfig(zh, NULL, "9", NULL, -1, added, &length, &stat));

    /* The session goes on over another connection, and ends with its ephemeral nodes. */
    clientid_t id = *zoo_client_id(zh);
    zhandle_t *other = zookeeper_init(argv[1], on_session, 10000, NULL, NULL, 0);
    for (int i = 0; i < 3000 && zoo_state(other) != ZOO_CONNECTED_STATE; i++) usleep(10000);
    WANT(zoo_client_id(other)->client_id != id.client_id, 1);
    WANT(zoo_wexists(other, "/c/s-0000000000", on_node, NULL, &stat), ZOK);
    OK(zookeeper_close(zh));
    await(&events, 4);
    WANT(last_type == ZOO_DELETED_EVENT, 1);
    OK(zookeeper_close(other));
    printf("C client: all answered\n");
    return 0;
}
