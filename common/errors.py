"""Every exception of the product under its base, with its module.

`FedAgeError` is for the person at the terminal: the message names what, where, what is allowed and the mend, and the
command line shows it as one line, without a traceback. `Refusal` is for the other side: rule and detail may be sent.
What derives from Python's own exceptions is caught where it is raised or one room further, and becomes one of the two;
`FileTooLarge` is an `OSError`, so that whoever reports files that cannot be read reports it.

Exception
├── Busy                                     client/agent/service
├── CampaignFailed                           server/sites/incoming
│   └── NotAddedUp                           server/campaign/accepted
├── Cancelled                                client/site/cancel
├── DecoderFailed                            client/cohort/decoding/decoder_pool
├── FedAgeError                              common/errors
│   ├── AnalysisUnusable                     common/analyses/registry
│   ├── ApprovalError                        client/consent/approvals
│   │   └── CampaignsUsedUp                  client/consent/approvals
│   ├── BudgetExceeded                       client/consent/ledger
│   ├── BundleRefused                        common/bundle/container
│   ├── CampaignErrors                       common/toml/problems
│   ├── CampaignTotalExceeded                client/consent/ledger
│   ├── CannotWrite                          server/cli/new_campaign
│   ├── ChargeRefused                        common/privacy/accountant
│   ├── CohortsUsedUp                        client/consent/cohort_distance
│   ├── EstimatorRefused                     common/estimators
│   ├── FeaturesDiffer                       common/estimators/configure
│   ├── FeaturesMissing                      common/estimators/table
│   ├── FewValuesChanged                     client/consent/cohort_distance
│   ├── NoBundle                             server/campaign/export
│   ├── NoFirstModel                         common/estimators/derive
│   ├── NoHash                               client/consent/snapshot_tables
│   ├── NoNoise                              common/privacy/accountant
│   ├── NoPrivateTraining                    common/estimators/private_training
│   ├── PhaseRefused                         common/estimators/configure
│   ├── PolicyErrors                         client/consent/policy/parse
│   ├── RangeMissing                         common/estimators/stated
│   ├── ResultsUnreadable                    server/record/results
│   ├── RunRefused                           server/record/run_folder
│   ├── RunUnusable                          server/compare/runs
│   ├── SettingsErrors                       deploy/machine/settings
│   ├── SiteBusy                             client/supervisor/supervise
│   ├── SnapshotChanged                      client/consent/snapshots
│   ├── SnapshotTooClose                     client/consent/cohort_distance
│   │   ├── CohortsTogetherClose             client/consent/cohort_distance
│   │   └── PartsTooClose                    client/consent/cohort_distance
│   ├── StoreError                           client/cohort/keys
│   ├── StoreUnavailable                     client/site/durable
│   │   ├── AccountsUnavailable              client/consent/accounts/account_file
│   │   ├── AuditUnavailable                 client/audit/log
│   │   ├── LedgerUnavailable                client/consent/ledger
│   │   ├── NoncesUnavailable                client/consent/accounts/nonces
│   │   └── SnapshotsUnavailable             client/consent/snapshots
│   └── SuperLinkFailed                      server/superlink/superlink
├── HeadRefused                              server/record/heads
├── LeftOutByFile                            common/analyses/base
├── Refusal                                  common/errors
│   ├── RequestRefused                       common/protocol/messages
│   │   └── Replayed                         client/consent/accounts/nonces
│   └── Withheld                             client/disclosure/guard
├── Refused                                  client/cohort/decoding/archive
└── WireError                                client/node/wire
ValueError
├── BatchNormRefused                         client/compute/private_training
├── EndsEarly                                client/cohort/dicom/header
├── EntryRefused                             client/audit/entries
├── HeadMalformed                            common/protocol/heads
├── InfluenceRefused                         common/statistics/influence
├── IterateRefused                           common/analyses/base
├── Malformed                                client/cohort/dicom/header
├── ModelRefused                             common/networks/arrays
├── NoSumOfPatients                          common/analyses/exact
├── NoWindow                                 client/consent/policy/hours
├── NotDicom                                 client/cohort/dicom/header
├── OutOfRange                               common/privacy/ring
├── SampleRefused                            common/preprocessing/image
├── SiteInfoMalformed                        server/sites/site_info
├── StepTooLong                              common/networks/steps
├── TooFewForStatistics                      client/compute/own_statistics
├── TooFewSamples                            client/compute/training
├── TooLarge                                 client/cohort/dicom/header
├── UnknownEstimator                         common/estimators
├── Unreadable                               client/cohort/dicom/dicomdir
├── UnusableColumn                           common/statistics/cohort
└── UpdateRefused                            server/campaign/strategies/updates
RuntimeError
├── BatchTooLarge                            client/compute/optimiser_steps
├── NotByLayer                               client/compute/layer_gradients
├── PredictionStopped                        client/compute/training
├── TrainingDiverged                         client/compute/training
└── TrainingStopped                          client/compute/training
KeyError
└── MissingColumn                            common/statistics/cohort
OSError
└── FileTooLarge                             deploy/machine/bounded
"""


class FedAgeError(Exception):
    """An error whose message is for the person at the terminal and holds no patient data."""


class Refusal(Exception):
    """A site does not answer, or withholds a part. `.rule` is a short name that both sides log; all may be sent."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule}: {detail}")
