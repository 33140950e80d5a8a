# An addon in C, in two contexts.
# packages: nodejs gcc libc6-dev
cat >addon.c <<'END'
#include <stddef.h>
typedef struct napi_env__ *napi_env; typedef struct napi_value__ *napi_value;
int napi_create_int32(napi_env, int, napi_value *);
int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
static int count;
napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value value;
  napi_create_int32(env, 42 + count++, &value);
  napi_set_named_property(env, exports, "answer", value);
  return exports;
}
END
env -u LD_PRELOAD cc -shared -fPIC -o addon.node addon.c
node -e '
console.log(require("./addon.node").answer, require("./addon.node").answer);
try { require("/nonesuch.node") } catch (error) { console.log(error.code) }
require("fs").writeFileSync("bad.node", "text");
try { require("./bad.node") } catch (error) { console.log(error.message) }
const { Worker } = require("worker_threads");
new Worker("console.log(require(\"./addon.node\").answer)", { eval: true }).on("exit", code => {
  console.log(code, require("crypto").createHash("sha256").update("abc").digest("hex"));
  process.exit(3);
});' 2>&1; echo "$?"
