/* remarks.c - see remarks.h. */
#include "cli/remarks.h"

void mn_remark_forgetting(const mn_cli *cli, const mn_session *s) {
  mn_limit l = mn_session_limit(s);
  mn_cli_note(cli, "the stream passed %lld tokens, which is all that %s holds (%s): the oldest are forgotten", (long long)l.tokens,
              *l.where ? l.where : "the model", l.key);
}
