//! The catalogue has every row that is made of quote and collateral, and names each attack once.

use std::collections::BTreeSet;

use testpki::catalogue;

#[test]
fn every_row_is_there() {
    // C26–C28, P11–P13, P16 and P17 are not made of quote and collateral.
    let chain = (1..=25).chain([29]).map(|row| format!("C{row}"));
    let policy = (1..=10).chain([14, 15]).map(|row| format!("P{row}"));
    let rows: BTreeSet<String> = chain.chain(policy).collect();
    let present: BTreeSet<String> = catalogue::cases().map(|case| case.row.to_owned()).collect();
    assert_eq!(present, rows);
}

#[test]
fn every_attack_has_a_name_of_its_own() {
    let names: BTreeSet<_> = catalogue::cases()
        .map(|case| (case.row, case.attack))
        .collect();
    assert_eq!(names.len(), catalogue::cases().count());
}
