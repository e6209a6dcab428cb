//! Plans a mini container. It has nothing on the engine: there is nothing to do for it until it is to go, and then it goes after its
//! children, which leave one after the other, dependents first.

use qm_api::meta::ObjectKey;

use crate::desired::DesiredParent;
use crate::plan::Plan;

/// Plans one mini container; `children` are those that the store still has.
pub fn plan_mini_container(desired: &DesiredParent, children: &[ObjectKey]) -> Plan {
    Plan { finalized: desired.rollup.deleting && children.is_empty(), ..Plan::default() }
}

/// How far its deletion is: which children are left and, of each, what it waits for. Those that wait for something are named first.
pub fn left_in_words(children: &[(ObjectKey, String)]) -> String {
    /// So many are named.
    const NAMED: usize = 5;
    let mut sorted: Vec<&(ObjectKey, String)> = children.iter().collect();
    sorted.sort_by_key(|(key, waits)| (waits.is_empty(), key.clone()));
    let named = sorted.iter().take(NAMED).map(|(key, waits)| match waits.as_str() {
        "" => format!("{}/{}", key.namespace, key.name),
        waits => format!("{}/{} ({waits})", key.namespace, key.name),
    });
    let named: Vec<String> = named.collect();
    let more = if sorted.len() > NAMED { format!(" and {} more", sorted.len() - NAMED) } else { String::new() };
    match sorted.len() {
        0 => "it is being deleted".to_owned(),
        1 => format!("it is being deleted; 1 child is left: {}", named.join(", ")),
        n => format!("it is being deleted; {n} children are left: {}{more}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::availability::Rollup;

    #[test]
    fn it_goes_after_its_children() {
        let key = ObjectKey::new("MiniContainer", "shop", "all");
        let child = ObjectKey::new("MiniService", "shop", "db");
        let desired =
            |deleting| DesiredParent { key: key.clone(), uid: "u".into(), generation: 1, rollup: Rollup { allow_empty: false, deleting } };
        assert!(!plan_mini_container(&desired(false), &[]).finalized, "nobody asked for it");
        assert!(!plan_mini_container(&desired(true), std::slice::from_ref(&child)).finalized);
        assert!(plan_mini_container(&desired(true), &[]).finalized);
        let left = [(child.clone(), String::new()), (ObjectKey::new("MiniService", "shop", "web"), "the engine is away".to_owned())];
        assert_eq!(left_in_words(&left), "it is being deleted; 2 children are left: shop/web (the engine is away), shop/db");
    }
}
