// node-zookeeper-client, as its examples use it: zookeeper.js SERVERS.
"use strict";
const assert = require("assert");
const { promisify } = require("util");
const zookeeper = require("node-zookeeper-client");

const { ACL, CreateMode, Event, Exception, Id, Permission } = zookeeper;
const client = zookeeper.createClient(process.argv[2], { sessionTimeout: 10000, retries: 2 });
const ask = (name, ...rest) => promisify(client[name].bind(client))(...rest);
// Some calls give a value and its stat.
const askBoth = (name, ...rest) =>
    new Promise((resolve, reject) =>
        client[name](...rest, (error, ...answer) => (error ? reject(error) : resolve(answer))),
    );
const fails = async (code, promise) => {
    await assert.rejects(promise, (error) => error.getCode() === code, `code ${code}`);
};
const watch = () => {
    let tell;
    const event = new Promise((resolve) => (tell = resolve));
    return { tell, event };
};

async function main() {
    await new Promise((resolve) => {
        client.once("connected", resolve);
        client.connect();
    });
    assert.strictEqual(client.getState(), zookeeper.State.SYNC_CONNECTED);
    assert.strictEqual(client.getSessionId().length, 8);
    assert(client.getSessionTimeout() >= 4000);

    // create.js, mkdirp.js, exists.js, get.js, set.js
    assert.strictEqual(await ask("create", "/js", Buffer.from("one")), "/js");
    await fails(Exception.NODE_EXISTS, ask("create", "/js"));
    const first = await ask("create", "/js/s-", null, CreateMode.EPHEMERAL_SEQUENTIAL);
    assert.strictEqual(first, "/js/s-0000000000");
    assert.strictEqual(await ask("mkdirp", "/js/a/b/c"), "/js/a/b/c");
    const changed = watch();
    const [data, stat] = await askBoth("getData", "/js", changed.tell);
    assert.strictEqual(data.toString(), "one");
    assert.deepStrictEqual([stat.version, stat.numChildren, stat.dataLength], [0, 2, 3]);
    const second = await ask("setData", "/js", Buffer.from("two"), 0);
    assert.strictEqual(second.version, 1);
    assert.strictEqual((await changed.event).getType(), Event.NODE_DATA_CHANGED);
    await fails(Exception.BAD_VERSION, ask("setData", "/js", Buffer.from("never"), 7));
    const created = watch();
    assert.strictEqual(await ask("exists", "/js/new", created.tell), null);
    const listed = watch();
    const [children] = await askBoth("getChildren", "/js", listed.tell);
    assert.deepStrictEqual(children.sort(), ["a", "s-0000000000"]);
    await ask("create", "/js/new");
    assert.strictEqual((await created.event).getType(), Event.NODE_CREATED);
    assert.strictEqual((await listed.event).getType(), Event.NODE_CHILDREN_CHANGED);
    const removed = watch();
    assert((await ask("exists", "/js/new", removed.tell)).czxid);
    await ask("remove", "/js/new", -1);
    assert.strictEqual((await removed.event).getType(), Event.NODE_DELETED);
    await fails(Exception.NO_NODE, ask("getData", "/js/new"));

    // acl.js
    client.addAuthInfo("digest", Buffer.from("user:pass"));
    await ask("create", "/js/own", Buffer.from("mine"), [new ACL(Permission.ALL, new Id("auth", ""))]);
    const [acls] = await askBoth("getACL", "/js/own");
    assert.strictEqual(acls[0].id.scheme, "digest");
    const readOnly = [new ACL(Permission.READ, new Id("world", "anyone"))];
    assert.strictEqual((await ask("setACL", "/js/own", readOnly, 0)).aversion, 1);
    await fails(Exception.NO_AUTH, ask("setData", "/js/own", Buffer.from("x")));

    // transaction.js
    const commit = (transaction) =>
        new Promise((resolve) => transaction.commit((error, results) => resolve([error, results])));
    const good = client.transaction().check("/js").create("/js/t", Buffer.from("1"));
    const [none, results] = await commit(good.setData("/js/t", Buffer.from("2")).remove("/js/t"));
    assert.strictEqual(none, null);
    assert.strictEqual(results[1].path, "/js/t");
    const bad = client.transaction().create("/js/never").check("/js", 99);
    const [error] = await commit(bad);
    assert.strictEqual(error.getCode(), Exception.BAD_VERSION);
    assert.strictEqual(await ask("exists", "/js/never"), null);

    // listSubTreeBFS.js, removeRecursive.js
    // With its version of `async` they see children, and nothing below them.
    const all = await ask("listSubTreeBFS", "/js/a/b");
    assert.deepStrictEqual(all, ["/js/a/b", "/js/a/b/c"]);
    for (const path of ["/js/a/b", "/js/a", "/js"]) await ask("removeRecursive", path, -1);
    assert.strictEqual(await ask("exists", "/js"), null);
    const ended = new Promise((resolve) => client.once("disconnected", resolve));
    client.close();
    await ended;
    console.log("node-zookeeper-client: all examples' calls answered");
}

main().then(
    () => process.exit(0),
    (error) => {
        console.error(error);
        process.exit(1);
    },
);
