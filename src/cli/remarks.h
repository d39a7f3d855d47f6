/* remarks.h - what more than one verb has to say about a model that runs. */
#ifndef MN_REMARKS_H
#define MN_REMARKS_H

#include "cli/cli.h"
#include "run/session.h"

/* The stream has outgrown a cache, as --forget allows. */
void mn_remark_forgetting(const mn_cli *cli, const mn_session *s);

#endif
