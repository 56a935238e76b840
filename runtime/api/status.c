#include "base/base.h"

const char *clattn_status_name(clattn_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                                        \
    case CLATTN_##name:                                                                                                \
        return "CLATTN_" #name;
        CLATTN_STATUS_MAP(CASE)
#undef CASE
    }
    return "?";
}

const char *clattn_status_text(clattn_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                                        \
    case CLATTN_##name:                                                                                                \
        return text;
        CLATTN_STATUS_MAP(CASE)
#undef CASE
    }
    return "?";
}
