type Boltlib::TargetSpec = Variant[String[1], Target, Array[Boltlib::TargetSpec]]
