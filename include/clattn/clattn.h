/* clattn: the attention mechanism on any OpenCL device. Includes all public headers but interop.h. */
#ifndef CLATTN_CLATTN_H
#define CLATTN_CLATTN_H

#include "clattn/attention.h"
#include "clattn/context.h"
#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "clattn/mha.h"
#include "clattn/reference.h"
#include "clattn/softmax.h"
#include "clattn/status.h"
#include "clattn/tune.h"
#include "clattn/types.h"
#include "clattn/verify.h"

#endif
