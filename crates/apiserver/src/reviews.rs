//! Kinds that are questions, never stored: access reviews and token reviews.

/// Their groups and versions.
pub const GROUPS: &[(&str, &str)] = &[
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
];

/// The questions of a group: plural and kind.
pub fn resources(group: &str, version: &str) -> &'static [(&'static str, &'static str)] {
    match (group, version) {
        ("authentication.k8s.io", "v1") => &[
            ("selfsubjectreviews", "SelfSubjectReview"),
            ("tokenreviews", "TokenReview"),
        ],
        ("authorization.k8s.io", "v1") => &[
            ("localsubjectaccessreviews", "LocalSubjectAccessReview"),
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
            ("subjectaccessreviews", "SubjectAccessReview"),
        ],
        _ => &[],
    }
}
