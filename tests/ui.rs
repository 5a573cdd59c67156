//! What the compiler says about misused macros. `TRYBUILD=overwrite` accepts what it says now.

#[test]
fn mistakes_are_compile_errors_that_point_at_them() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
