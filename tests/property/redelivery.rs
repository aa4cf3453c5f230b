//! A message that is delivered more than once is handled once.

use super::cases;
use crate::support::test_platform::Deliveries;

#[tokio::test]
async fn delivered_twice_is_delivered_once() {
    for deliveries in [Deliveries::Twice, Deliveries::TwoAtOnce] {
        for case in cases::all() {
            let undisturbed = case.undisturbed().await;
            let mut platform = case.prepare().await;
            platform.deliveries = deliveries;
            platform.run(&case.order).await;
            assert_eq!(
                platform.result(),
                undisturbed,
                "{}, {deliveries:?}:\n{}",
                case.name,
                platform.transcript()
            );
        }
    }
}

#[tokio::test]
async fn sent_again_in_another_message_changes_nothing() {
    for case in cases::all() {
        let undisturbed = case.undisturbed().await;
        let mut platform = case.prepare().await;
        platform.send(&case.order);
        platform.send(&case.order.again());
        platform.run_until_quiet().await;
        platform.run(&case.order.again().again()).await;
        assert_eq!(platform.result(), undisturbed, "{}:\n{}", case.name, platform.transcript());
    }
}

#[tokio::test]
async fn timers_that_fire_too_often_change_nothing() {
    for case in cases::all() {
        let undisturbed = case.undisturbed().await;
        let mut platform = case.prepare().await;
        platform.send(&case.order);
        while platform.happen().await {
            platform.fire("ResumeOperations").await;
            platform.fire("OutboxRelay").await;
        }
        assert_eq!(platform.result(), undisturbed, "{}:\n{}", case.name, platform.transcript());
    }
}
