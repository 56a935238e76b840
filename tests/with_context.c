#include <stdio.h>
#include <stdlib.h>

#include "clattn/clattn.h"
#include "harness.h"

int clattn_test_main_with(clattn_context **context, clattn_verify_mode verify, const clattn_test_suite *suites,
                          int argc, char **argv) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.kernel_dir = getenv("CLATTN_KERNEL_DIR");
    options.verify = verify;
    if (verify == CLATTN_VERIFY_NEVER) options.cache_dir = "";
    if (clattn_context_create(context, &options) != CLATTN_OK) return fprintf(stderr, "%s\n", clattn_last_error()), 1;
    clattn_device_info device;
    if (clattn_context_device(*context, &device) == CLATTN_OK)
        printf("     device: %s, %s, driver %s\n", device.name, device.platform, device.driver);
    const int failed = clattn_test_main(suites, argc, argv);
    clattn_context_destroy(context);
    return failed;
}
