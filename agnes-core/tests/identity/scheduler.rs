//! Whether anybody hears of the scheduler, wherever it runs.

use std::sync::Arc;

use agnes_core::scheduler::{JobAnswer, Perform, ScheduledJob, Scheduler, SchedulerSettings};
use chrono::TimeDelta;

use crate::support::{SERVICE, Site, on_both_stores};

on_both_stores! { a_scheduler_elsewhere_is_heard what_is_not_due_is_not_missed }

/// What the report says of the scheduler, as the installation as a whole.
async fn told(site: &Site) -> (String, String) {
    let ctx = site.signed_in("ann@acme.example").await;
    let report = site.engine.maintenance().services(&ctx, false, true).await.unwrap();
    let services = report.services.unwrap();
    (services["scheduler"]["status"].as_str().unwrap().to_owned(), report.status.to_owned())
}

fn said(scheduler: &str, whole: &str) -> (String, String) {
    (scheduler.to_owned(), whole.to_owned())
}

/// Its calls of a route that needs nobody leave no row in the log.
async fn a_scheduler_elsewhere_is_heard(site: Site) {
    site.admin("ann@acme.example").await;
    assert_eq!(told(&site).await, said("unknown", "healthy"));
    let sign_in = site.engine.sign_in();
    sign_in.hear_service(SERVICE).await.unwrap();
    for _ in 0..4 {
        site.later(TimeDelta::minutes(29));
        assert_eq!(told(&site).await, said("ok", "healthy"));
        sign_in.hear_service(SERVICE).await.unwrap();
    }
    site.later(TimeDelta::minutes(31));
    sign_in.hear_service("a token of somebody else, long enough").await.unwrap();
    assert_eq!(told(&site).await, said("warning", "degraded"));
    sign_in.hear_service(SERVICE).await.unwrap();
    assert_eq!(told(&site).await, said("ok", "healthy"));
}

struct Answered;

#[async_trait::async_trait]
impl Perform for Answered {
    async fn perform(&self, _: &ScheduledJob) -> Result<JobAnswer, String> {
        Ok(JobAnswer { status: 200, body: String::new() })
    }
}

/// One whose jobs come every two hours is silent in between.
async fn what_is_not_due_is_not_missed(site: Site) {
    site.admin("ann@acme.example").await;
    // All of them from the start on.
    let settings = |name: &str| match name {
        name if name.ends_with("_INTERVAL") => Some("7200".to_owned()),
        name if name.ends_with("_OFFSET_MAX_SECONDS") => Some("0".to_owned()),
        _ => None,
    };
    let settings = SchedulerSettings::from_env(&settings).unwrap();
    let scheduler = Scheduler::of(&site.engine, settings, Arc::new(Answered));
    for _ in 0..2 {
        assert!(scheduler.tick().await.unwrap() > 0);
        scheduler.finish().await;
        site.later(TimeDelta::minutes(119));
        assert_eq!(told(&site).await, said("ok", "healthy"));
        site.later(TimeDelta::minutes(1));
    }
    site.later(TimeDelta::minutes(31));
    assert_eq!(told(&site).await, said("warning", "degraded"));
}
